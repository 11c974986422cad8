"""Makes the survey's own photos, with everything that is true of them, into stream/survey/scenes/.

    python scripts/survey_scenes.py [SCENE...] [--frames 32] [--scale 1] [--out FOLDER]

Needs OpenGL: `apt install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri`, and `pip install -e '.[starter]'`. On one core
a scene takes about a minute. Everything is made from formulas; see scripts/survey/.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "survey"))

import close
import inside
import numpy as np
import outside
import pillow_heif
from pack import pack
from painter import Painter, developed, encoded
from PIL import Image
from stage import U8, Stage

SCENES = {
    "restaurant": inside.restaurant,
    "museum": inside.museum,
    "stair": outside.stair,
    "street": outside.street,
    "mountains": outside.mountains,
    "shelf": close.shelf,
    "night": outside.night,
    "portrait": close.portrait,
}
HEIC = ("stair", "mountains", "portrait")
"""Stored as telephones do; the upright ones turned, with an orientation."""
FOLDER = Path(__file__).parents[1] / "stream/survey/scenes"
JPEG_QUALITY, HEIC_QUALITY, CARTOON_QUALITY = 84, 68, 80
_TURNED = 6
"""EXIF orientation: to be shown turned by 90° clockwise."""


def make(name: str, folder: Path, *, frames: int, scale: float) -> Stage:
    """Render one scene and write its files."""
    stage = SCENES[name]()
    stage.camera.size_wh = (round(stage.camera.size_wh[0] * scale), round(stage.camera.size_wh[1] * scale))
    painter, look = Painter(stage, detail=scale), stage.look
    pack(stage, painter.found(), folder, name)
    photograph = developed(painter.photograph(frames), look.exposure, look.bloom, look.saturation)
    if name in HEIC:
        save_heic(folder / f"{name}.heic", photograph)
    else:
        Image.fromarray(photograph).save(folder / f"{name}.jpg", quality=JPEG_QUALITY, optimize=True, progressive=True)
    flat = Image.fromarray(encoded(painter.cartoon(2) * look.exposure))
    flat.save(folder / f"{name}_cartoon.jpg", quality=CARTOON_QUALITY, optimize=True, progressive=True, subsampling=0)
    painter.close()
    return stage


def save_heic(path: Path, picture: U8) -> None:
    """Write a HEIC; an upright picture is stored lying, with the orientation that turns it back."""
    upright = picture.shape[0] > picture.shape[1]
    stored = np.ascontiguousarray(np.rot90(picture)) if upright else picture
    exif = Image.Exif()
    exif[0x0112] = _TURNED if upright else 1
    image = pillow_heif.from_pillow(Image.fromarray(stored))
    image.save(path, quality=HEIC_QUALITY, exif=exif.tobytes())


def main() -> None:
    """Render the scenes that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"of {', '.join(SCENES)}; default: all")
    parser.add_argument("--frames", type=int, default=32, help="samples of light a pixel")
    parser.add_argument("--scale", type=float, default=1.0, help="of 1600×1200")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.scenes or SCENES:
        started = time.monotonic()
        make(name, options.out, frames=options.frames, scale=options.scale)
        size = sum(path.stat().st_size for path in options.out.glob(f"{name}[._]*"))
        print(f"{name}: {time.monotonic() - started:.0f} s, {size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()

"""Packs the assets for a machine that is lent for minutes: half-precision meshes, WebP textures, RGBE panoramas.

    python scripts/starter/bundle.py --work FOLDER --to BUNDLE [--real FOLDER] [--photos FOLDER]   # here
    python scripts/starter/bundle.py --work FOLDER --from BUNDLE   # there: makes assets.pickle again

`--real` is a folder of measured pictures (index.json, NAME.jpg, NAME.png), copied whole. `--photos` are photographs
(*.jpg) without depth. Heavy models are left out.
"""

import argparse
import lzma
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import assets as store
import cv2
import numpy as np
from assets import Assets, Part

MOST_TRIANGLES = 7_000
"""Of a model; people and vehicles, of which there are few, may have `MOST_OF_FEW`."""
MOST_OF_FEW = 14_000
FEW = ("Characters", "Vehicles")
WEBP_QUALITY, PHOTO_QUALITY = 65, 70


def packed(assets: Assets) -> dict[str, Any]:
    """Plain dictionaries and small arrays: vertices once, with their indices."""
    kept = [m for m in assets.models if m.triangles <= (MOST_OF_FEW if m.category in FEW else MOST_TRIANGLES)]
    used = {part.material.texture for model in kept for part in model.parts}
    meshes = []
    for model in kept:
        for part in model.parts:
            rows = part.vertices.copy()
            rows[:, 3:6] = np.round(rows[:, 3:6] * 32) / 32
            rows[:, 6:] = np.clip(rows[:, 6:], -1000, 1000)
            different, index = np.unique(rows.astype(np.float16), axis=0, return_inverse=True)
            steps = np.diff(index.ravel(), prepend=0).astype(np.int32)
            meshes.append((different.T.copy(), steps))
    textures = {key: picture[..., [2, 1, 0, 3]] for key, picture in assets.textures.items() if key in used}
    return {
        "models": [replace(m, parts=[replace(p, vertices=None) for p in m.parts]) for m in kept],
        "meshes": meshes,
        "textures": {key: _encoded(".webp", picture, WEBP_QUALITY) for key, picture in textures.items()},
        "panoramas": {key: _encoded(".hdr", _rounded(picture[..., ::-1])) for key, picture in assets.panoramas.items()},
    }


def _rounded(picture: Any) -> Any:
    """To 64 levels of the brightest channel's power of two, which compress better than 256."""
    _, exponent = np.frexp(picture.max(-1, keepdims=True))
    return np.ldexp(np.round(np.ldexp(picture, 6 - exponent)), exponent - 6).astype(np.float32)


def _encoded(suffix: str, picture: Any, quality: int | None = None) -> bytes:
    options = [cv2.IMWRITE_WEBP_QUALITY, quality] if quality else []
    made, code = cv2.imencode(suffix, np.ascontiguousarray(picture), options)
    if not made:
        raise SystemExit(f"a texture of {picture.shape} cannot be encoded as {suffix}")
    return bytes(code)


def unpacked(content: dict[str, Any]) -> Assets:
    """The opposite of `packed`."""
    meshes = iter(content["meshes"])
    models = []
    for model in content["models"]:
        parts: list[Part] = []
        for part in model.parts:
            different, steps = next(meshes)
            vertices = np.ascontiguousarray(different.T[np.cumsum(steps)], np.float32)
            parts.append(replace(part, vertices=vertices))
        models.append(replace(model, parts=parts))

    def decoded(code: bytes) -> Any:
        return cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_UNCHANGED)

    textures = {}
    for key, code in content["textures"].items():
        picture = decoded(code)
        if picture.shape[2] == 3:
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA)
        textures[key] = np.ascontiguousarray(picture[..., [2, 1, 0, 3]])
    panoramas = {key: np.ascontiguousarray(decoded(code)[..., ::-1]) for key, code in content["panoramas"].items()}
    return Assets(models, textures, panoramas)


def main() -> None:
    """Pack or unpack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of assets.pickle")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--to", type=Path, help="folder to write the packed assets to")
    way.add_argument("--from", type=Path, dest="source", help="folder of packed assets")
    parser.add_argument("--real", type=Path, help="with --to: measured pictures to take along")
    parser.add_argument("--photos", type=Path, help="with --to: photographs to take along")
    options = parser.parse_args()
    if options.source:
        with lzma.open(options.source / "assets.xz") as file:  # a pickle: only from a folder of one's own
            store.save(options.work, unpacked(pickle.load(file)))
        return
    options.to.mkdir(parents=True, exist_ok=True)
    with lzma.open(options.to / "assets.xz", "wb", preset=3) as file:
        pickle.dump(packed(store.load(options.work)), file, protocol=5)
    if options.real:
        shutil.copytree(options.real, options.to / "real", dirs_exist_ok=True)
    if options.photos:
        (options.to / "photos").mkdir(exist_ok=True)
        for path in sorted(options.photos.glob("*.jpg")):
            code = _encoded(".webp", cv2.imread(str(path)), PHOTO_QUALITY)
            (options.to / "photos" / f"{path.stem}.webp").write_bytes(code)
    size = sum(path.stat().st_size for path in options.to.rglob("*") if path.is_file())
    print(f"{options.to}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()

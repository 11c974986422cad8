"""Measures what `--steady` does to three clips, and compares the cut detector with PySceneDetect's on a labelled clip.

    python scripts/measure/steadiness.py PHOTO... [--model starter] [--keep FOLDER]

It takes four photographs or more, from which it makes clips: a pan over one of them; one with a cut and a flash; and
one with hard cuts, flashes, a fade through black, a dissolve and pans, whose cuts are known. PySceneDetect is asked if
it is installed (`pip install scenedetect`).
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))

import stream
from stream.media import RgbConverter, av, cv2, file_url
from stream.motion.cuts import CutDetector

U8 = NDArray[np.uint8]
SIZE_WH = 640, 360
FPS = 25
DEMO = Path(stream.__file__).parent / "data" / "demo.mp4"


def read(photo: Path) -> U8:
    """A photograph, uint8 RGB, at 1.6 times the clips' size or more."""
    bgr = cv2.imread(str(photo))
    if bgr is None:
        raise SystemExit(f"{photo}: cannot be read")
    grow = max(1.6 * SIZE_WH[0] / bgr.shape[1], 1.25 * SIZE_WH[1] / bgr.shape[0])
    return np.asarray(cv2.cvtColor(cv2.resize(bgr, None, fx=grow, fy=grow), cv2.COLOR_BGR2RGB), np.uint8)


def pan(photo: U8, frames: int, *, speed: float = 3.0, start: float = 0.0) -> Iterator[U8]:
    """A camera that turns by `speed` pixels a frame and back, held by hand, with sensor noise."""
    rng, reach = np.random.default_rng(1), photo.shape[1] - SIZE_WH[0] - 20
    for number in range(frames):
        way = (start + speed * number) % (2 * reach)
        left = 10 + (way if way < reach else 2 * reach - way)
        top = (photo.shape[0] - SIZE_WH[1]) / 2 + 3 * np.sin(number / 3)
        centre = left + SIZE_WH[0] / 2 + np.sin(number / 2), top + SIZE_WH[1] / 2
        view = cv2.getRectSubPix(photo, SIZE_WH, centre).astype(np.int16)
        yield np.clip(view + rng.normal(0, 2, view.shape), 0, 255).astype(np.uint8)


def flash(picture: U8, gain: float) -> U8:
    """The picture under a flash of light: blown out."""
    return np.clip(picture.astype(np.float32) * gain + 90, 0, 255).astype(np.uint8)


def cut_and_flash(photos: Sequence[U8]) -> list[U8]:
    """Two scenes of 40 frames; frames 20 and 21 are a flash."""
    frames = [*pan(photos[0], 40, speed=2), *pan(photos[1], 40, speed=2)]
    frames[20], frames[21] = flash(frames[20], 4), flash(frames[21], 2.5)
    return frames


def labelled(photos: Sequence[U8]) -> tuple[list[U8], list[int], list[int]]:
    """A clip of pans with its cuts: the first frame of each scene that begins at once, and of each that fades in."""
    frames: list[U8] = []
    hard: list[int] = []
    faded: list[int] = []
    for number, photo in enumerate(photos):
        if frames:
            hard.append(len(frames))
        scene = [*pan(photo, 40, speed=(2, 12, 5)[number % 3])]
        if number % 2:
            scene[18], scene[19] = flash(scene[18], 4), flash(scene[19], 2.5)
        frames += scene
    dark = [np.zeros_like(frames[0])] * 6
    last = frames[-1]
    frames += [np.asarray(cv2.convertScaleAbs(last, alpha=1 - k / 15), np.uint8) for k in range(1, 16)] + dark
    faded.append(len(frames))
    back = [*pan(photos[0], 60, speed=4)]
    frames += [np.asarray(cv2.convertScaleAbs(one, alpha=k / 15), np.uint8) for k, one in enumerate(back[:15], 1)]
    frames += back[15:]
    other = [*pan(photos[1], 60, speed=4)]
    for k in range(25):  # a dissolve
        frames[k - 25] = np.asarray(cv2.addWeighted(frames[k - 25], 1 - k / 25, other[k], k / 25, 0), np.uint8)
    frames += other[25:]
    return frames, hard, faded


def write(path: Path, frames: Sequence[U8]) -> Path:
    with av.open(file_url(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        (video.width, video.height), video.pix_fmt = SIZE_WH, "yuv420p"
        converter = RgbConverter("yuv420p")
        converter.tag(video.codec_context)
        for number, rgb in enumerate(frames):
            frame = converter.convert(rgb)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def our_cuts(clip: Path) -> list[int]:
    """The frames that begin a scene, as the program sees them."""
    detector = CutDetector()
    with av.open(file_url(clip)) as container:
        frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return [number for number, rgb in enumerate(frames) if detector.is_cut(rgb)]


def their_cuts(clip: Path) -> dict[str, list[int]]:
    """The same by PySceneDetect's detectors with their defaults; empty if it is not installed."""
    if find_spec("scenedetect") is None:
        return {}
    import scenedetect

    def found(detector: Any) -> list[int]:
        scenes: Any = scenedetect.detect(str(clip), detector)
        return [start.frame_num for start, _ in scenes[1:]]

    names = "ContentDetector", "AdaptiveDetector", "ThresholdDetector"
    return {name: found(getattr(scenedetect, name)()) for name in names}


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--model", default="starter", help="a name from `depthstream models`")
    parser.add_argument("--keep", type=Path, help="keep the clips in this folder")
    options = parser.parse_args()
    if len(options.photos) < 4:
        parser.error("four photographs or more, please")
    photos = [read(photo) for photo in options.photos]
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        frames, hard, faded = labelled(photos)
        clip = write(folder / "labelled.mp4", frames)
        print(f"{len(frames)} frames; hard cuts {hard}, faded in {faded}")
        for name, cuts in {"depthstream": our_cuts(clip), **their_cuts(clip)}.items():
            print(f"  {name:18} {cuts}")
        clips = [
            DEMO,
            write(folder / "pan.mp4", [*pan(photos[2], 75)]),
            write(folder / "cut-flash.mp4", cut_and_flash(photos)),
        ]
        for clip in clips:
            report = stream.run(clip, model=options.model, steady=True, output=Path(made) / "out.mp4", overwrite=True)
            found = report.depth_change[0]
            if found is None or found.steadied is None:
                raise SystemExit(f"{clip.name}: nothing was measured")
            less = 1 - found.steadied / found.raw
            print(f"{clip.name:14} change {found.raw:.4f}, steadied {found.steadied:.4f}: {less:.0%} less")


if __name__ == "__main__":
    main()

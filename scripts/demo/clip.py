"""Makes the clip that `depthstream demo` runs on, and the true depth of a few of its frames.

    python scripts/demo/clip.py                      writes stream/data/demo.mp4 and tests/data/demo_depth.npz
    python scripts/demo/clip.py --still 60 --to x.png   one frame, for looking at

A camera walks through a ray-cast room (`scene`), lit once (`light`).
Invariant: the same code gives the same pictures and depth; each depth is that of its frame's own rays.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from light import Surfaces, blocks, gather, light_map  # noqa: E402
from scene import ENVIRONMENT, SUN, build, camera  # noqa: E402
from solids import F32, Solid, nearest  # noqa: E402

from stream.media import av, cv2  # noqa: E402

SIZE_HW = (480, 640)
RATE = 25
FRAMES = 120
FOV_DEG = 60.0
"""Horizontal field of view."""
SAMPLES = 2
"""Rays per pixel along each axis."""
DEPTH_FRAMES = (0, 30, 60, 90, 119)
DEPTH_HW = (120, 160)
AUDIO_RATE = 44100
EXPOSURE = 1.1
ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "stream" / "data"
TRUTH = ROOT / "tests" / "data"
"""Where the true depth goes: only the tests read it, so it is not part of the package."""


def rays(part: float, size_hw: tuple[int, int]) -> tuple[F32, F32, F32]:
    """Camera position (3, 1), unit directions (3, H, W) through pixel centres, their cosines to the axis."""
    height, width = size_hw
    position, turn = camera(part)
    focal = width / 2 / np.tan(np.radians(FOV_DEG) / 2)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / focal
    y = (height / 2 - np.arange(height, dtype=np.float32) - 0.5) / focal
    local = np.stack([*np.meshgrid(x, y), np.ones(size_hw)]).astype(np.float32)
    local /= np.sqrt((local**2).sum(axis=0))
    return position[:, None], np.einsum("ij,jhw->ihw", turn, local), local[2]


def window_of(solid: Solid, part: float, size_hw: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns that a solid can cover; all of them if it reaches behind the camera."""
    height, width = size_hw
    position, turn = camera(part)
    signs = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1)), np.float32).reshape(3, 8)
    corners = solid.turn @ (signs * solid.extent[:, None]) + np.array(solid.centre, np.float32)[:, None]
    x, y, z = turn.T @ (corners - position[:, None])
    if z.min() < 0.05:
        return slice(0, height), slice(0, width)
    focal = width / 2 / np.tan(np.radians(FOV_DEG) / 2)
    column, row = width / 2 + focal * x / z, height / 2 - focal * y / z
    return (
        slice(int(np.clip(row.min() - 1, 0, height)), int(np.clip(row.max() + 2, 0, height))),
        slice(int(np.clip(column.min() - 1, 0, width)), int(np.clip(column.max() + 2, 0, width))),
    )


def first_hits(solids: list[Solid], part: float, size_hw: tuple[int, int]) -> tuple[F32, np.ndarray]:
    """Distance (H, W) along each primary ray and the number of the solid it meets; inf and -1 for the sky."""
    position, directions, _ = rays(part, size_hw)
    distance, which = np.full(size_hw, np.inf, np.float32), np.full(size_hw, -1, np.int16)
    for number, solid in enumerate(solids):
        window = window_of(solid, part, size_hw)
        d = directions[(slice(None), *window)]
        if not d.size:
            continue
        t, _ = nearest([solid], position, d.reshape(3, -1))
        t = t.reshape(d.shape[1:])
        nearer = t < distance[window]
        distance[window][nearer] = t[nearer]
        which[window][nearer] = number
    return distance, which


def true_depth(solids: list[Solid], part: float, size_hw: tuple[int, int]) -> F32:
    """Distance along the camera's axis in metres, float32 (H, W), inf for the sky."""
    distance, _ = first_hits(solids, part, size_hw)
    return distance * rays(part, size_hw)[2]


def picture(
    surfaces: Surfaces, light: F32, part: float, size_hw: tuple[int, int], samples: int = SAMPLES
) -> np.ndarray:
    """One frame, uint8 H×W×3 sRGB."""
    fine = (size_hw[0] * samples, size_hw[1] * samples)
    position, directions, _ = rays(part, fine)
    distance, which = first_hits(surfaces.solids, part, fine)
    pixel = 2 * np.tan(np.radians(FOV_DEG) / 2) / fine[1]
    radiance = np.empty((3, *fine), np.float32)
    sky = which < 0
    radiance[:, sky] = ENVIRONMENT(directions[:, sky])
    for number, solid in enumerate(surfaces.solids):
        seen = which == number
        if not seen.any():
            continue
        d, t = directions[:, seen], distance[seen]
        p = solid.to_local(position + t * d)
        local_n = solid.normal(p)
        n = solid.turn @ local_n
        facing = np.clip(-(n * d).sum(axis=0), 0.02, 1)
        footprint = t * np.float32(pixel) / np.sqrt(facing)
        albedo = solid.paint(p, local_n, footprint)
        out = albedo * surfaces.sample(number, p, light) / np.float32(np.pi)
        out += np.array(solid.glow, np.float32)[:, None] * (0.75 + 0.25 * facing)
        if solid.gloss:
            out += _reflection(n, d, facing) * np.float32(solid.gloss)
        radiance[:, seen] = out
    image = cv2.resize(np.moveaxis(_tone(radiance), 0, -1), size_hw[::-1], interpolation=cv2.INTER_AREA)
    return np.clip(_encode(image) * 255 + 0.5, 0, 255).astype(np.uint8)


def _reflection(n: F32, d: F32, facing: F32) -> F32:
    """Reflection of a varnished surface: the bright side of the room behind the camera, by Schlick's Fresnel term."""
    r = d - 2 * (n * d).sum(axis=0) * n
    fresnel = 0.04 + 0.5 * (1 - facing) ** 5
    panel = np.clip(-r[2] * 3 - 0.6, 0, 1) * np.clip(1.4 - np.abs(r[0]) * 2, 0, 1) * np.clip(r[1] * 4 + 0.6, 0, 1)
    window = np.clip(r[2] * 3 - 1.2, 0, 1) * np.clip(r[1] * 5 + 0.5, 0, 1) * np.clip(2 - np.abs(r[0] + 0.2) * 5, 0, 1)
    return fresnel * (2.6 * panel + 2.2 * window + 0.12) * np.array([[1.0], [0.98], [0.95]], np.float32)


def _tone(linear: F32) -> F32:
    """Filmic shoulder, so that the window is not overexposed."""
    x = linear * np.float32(EXPOSURE)
    return (x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)).astype(np.float32)


def _encode(linear: F32) -> F32:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055)


def sound(seconds: float) -> np.ndarray:
    """A soft rising chord, float32 (1, n), with fades."""
    t = np.arange(round(seconds * AUDIO_RATE)) / AUDIO_RATE
    notes = (220.0, 277.18, 329.63, 440.0, 554.37)
    wave = np.zeros_like(t)
    for k, hertz in enumerate(notes):
        since = t - 0.7 * k
        swell = np.clip(since / 0.5, 0, 1) * np.exp(-np.clip(since, 0, None) / 2.2)
        tremor = 1 + 0.15 * np.sin(2 * np.pi * 4.5 * t + k)
        wave += swell * tremor * (np.sin(2 * np.pi * hertz * t) + 0.2 * np.sin(4 * np.pi * hertz * t))
    fade = np.clip(t / 0.05, 0, 1) * np.clip((seconds - t) / 0.6, 0, 1)
    return (0.09 * wave * fade).astype(np.float32)[None]


def write_clip(path: Path, pictures: list[np.ndarray]) -> None:
    """H.264 (BT.709, limited range) and AAC in an MP4 whose index comes first."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        height, width = pictures[0].shape[:2]
        video = container.add_stream("libx264", rate=RATE, options={"crf": "21", "preset": "slow", "tune": "animation"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.color_range, video.codec_context.colorspace = 1, 1
        video.codec_context.color_primaries = video.codec_context.color_trc = 1
        audio = container.add_stream("aac", rate=AUDIO_RATE, layout="mono", bit_rate=64000)
        for index, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(video.encode(frame))
        samples = sound(len(pictures) / RATE)
        for start in range(0, samples.shape[1], 1024):
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 1024]), "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
            container.mux(audio.encode(block))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


class Studio:
    """The lit scene; `light` is computed by as many processes as given."""

    def __init__(
        self, *, coarseness: float = 1.0, hemisphere: int = 96, pool: ProcessPoolExecutor | None = None
    ) -> None:
        self.surfaces = Surfaces(build(), coarseness=coarseness)
        tasks = [(first, coarseness, hemisphere) for first in blocks(self.surfaces)]
        parts = pool.map(_gather, tasks, chunksize=8) if pool else map(_gather, tasks)
        self.light = light_map(self.surfaces, list(parts))


_scene: dict[float, Surfaces] = {}
"""One copy of the surfaces for each worker process."""


def _gather(task: tuple[int, float, int]) -> tuple[F32, F32, np.ndarray]:
    first, coarseness, hemisphere = task
    if coarseness not in _scene:
        _scene[coarseness] = Surfaces(build(), coarseness=coarseness)
    return gather(_scene[coarseness], ENVIRONMENT, SUN, first, hemisphere)


def _frame(task: tuple[F32, float, tuple[int, int]]) -> np.ndarray:
    light, part, size_hw = task
    if 1.0 not in _scene:
        _scene[1.0] = Surfaces(build())
    return picture(_scene[1.0], light, part, size_hw)


def main() -> None:
    """Write the clip and its depth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--still", type=int, nargs="*", help="render these frames only, as PNG")
    parser.add_argument("--to", type=Path, help="folder to write to; default: where the package and the tests read")
    parser.add_argument("--draft", action="store_true", help="coarse light, for a quick look")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    coarseness, hemisphere = (2.0, 48) if options.draft else (1.0, 96)
    began = time.monotonic()
    with ProcessPoolExecutor(options.processes) as pool:
        studio = Studio(coarseness=coarseness, hemisphere=hemisphere, pool=pool)
        print(f"{studio.surfaces.count} texels lit in {time.monotonic() - began:.0f} s")
        if options.still is not None:
            for index in options.still:
                rgb = picture(studio.surfaces, studio.light, index / (FRAMES - 1), SIZE_HW)
                cv2.imwrite(str((options.to or DATA) / f"demo_{index:03d}.png"), rgb[..., ::-1])
                print(f"frame {index}: {time.monotonic() - began:.0f} s")
            return
        pictures = list(pool.map(_frame, [(studio.light, i / (FRAMES - 1), SIZE_HW) for i in range(FRAMES)]))
    clip = (options.to or DATA) / "demo.mp4"
    write_clip(clip, pictures)
    depth = np.stack([true_depth(studio.surfaces.solids, i / (FRAMES - 1), DEPTH_HW) for i in DEPTH_FRAMES])
    np.savez_compressed(
        (options.to or TRUTH) / "demo_depth.npz",
        frames=np.array(DEPTH_FRAMES, np.int32),
        depth_m=depth.astype(np.float16),
    )
    print(f"{FRAMES} frames in {time.monotonic() - began:.0f} s, {clip.stat().st_size} bytes")


if __name__ == "__main__":
    main()

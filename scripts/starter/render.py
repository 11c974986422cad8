"""Renders images with depth into shards: the second step.

    python scripts/starter/render.py --work FOLDER [--pictures 20000] [--workers 2] [--seed 1] [--held-out]

Writes FOLDER/pictures/SEED.rgb.npy (uint8 N×H×W×3, sRGB) and .inverse.npy (float16 N×H×W, 1 / metres along the viewing
axis; 0 is the sky). A shard's scenes depend on its seed, its patterns and shapes on that of its group of ten, so an
interrupted run continues with the missing shards and gives the same images. `--held-out` writes to
FOLDER/held_out, from seeds that training never sees.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from assets import F32, U8, load
from textures import F64
from world import Scene, Stock

WIDTH, HEIGHT = 384, 288
SHARD = 100
GROUP = 10
HELD_OUT_SEED = 900_000
SHARES: dict[str, float] = {
    "rooms.room": 0.18,
    "rooms.floor": 0.07,
    "rooms.kitchen": 0.06,
    "rooms.corridor": 0.06,
    "rooms.stairs": 0.05,
    "rooms.portrait": 0.11,
    "tables.desk": 0.1,
    "tables.tabletop": 0.05,
    "tables.shelves": 0.05,
    "tables.floating": 0.05,
    "outdoors.street": 0.08,
    "outdoors.road": 0.1,
    "outdoors.country": 0.08,
    "outdoors.thin": 0.05,
}
"""What is rendered, and how often."""


def draw_light(stock: Stock, scene: Scene, forward: F64) -> "Light":
    """Light from formulas; if there are panoramas, often theirs, and what they show as the far background."""
    light = _formula_light(stock, scene, forward)
    if not stock.assets.panoramas:
        return light
    light.turn = stock.uniform(0, 1)
    if scene.outdoors:
        if stock.chance(0.45):
            light.panorama = light.background = stock.pick(stock.open_air)
            light.level = stock.uniform(0.5, 1.5)
            light.sun_colour = light.sun_colour * stock.uniform(0, 1)
        return light
    light.level = float(np.mean(light.ambient_up)) * stock.uniform(0.8, 1.6)
    if stock.chance(0.65):
        light.panorama = stock.pick(stock.indoor_light)
    if stock.chance(0.6):
        light.background = stock.pick(stock.open_air)
        light.level = max(light.level, 0.3)
    return light


def _formula_light(stock: Stock, scene: Scene, forward: F64) -> "Light":
    """Day, dusk, overcast or night outdoors, sometimes with fog or the sun in view; lamps and window light indoors."""
    from renderer import LAMPS, Light

    rng, uniform = stock.rng, stock.uniform
    lamp_at, lamp_colour = np.zeros((LAMPS, 3)), np.zeros((LAMPS, 3))
    for number, at in enumerate(scene.lamps[:LAMPS]):
        if stock.chance(0.75):
            lamp_at[number] = at
            lamp_colour[number] = uniform(0.2, 1.6) * np.array([1, uniform(0.75, 1), uniform(0.5, 1)])
    warm = np.array([1, uniform(0.8, 1.02), uniform(0.6, 1.1)])
    if not scene.outdoors:
        sun = rng.normal(0, 1, 3)
        sun[1] = abs(sun[1]) + 0.3
        ambient = uniform(0.08, 0.7) * warm
        bright = np.ones(3) * uniform(0.5, 2.5)
        return Light(
            sun=sun / np.linalg.norm(sun),
            sun_colour=warm * (uniform(0, 1.6) if stock.chance(0.7) else 0.0),
            ambient_up=ambient,
            ambient_down=ambient * uniform(0.4, 0.9),
            zenith=bright * [uniform(0.5, 1), uniform(0.7, 1), 1],
            horizon=bright,
            ground=bright * 0.5,
            lamp_at=lamp_at,
            lamp_colour=lamp_colour,
            cover=uniform(0, 1),
        )
    overcast, night = stock.chance(0.3), stock.chance(0.06)
    elevation = uniform(0.03, 0.35) if stock.chance(0.3) else uniform(0.3, 1.4)
    azimuth = stock.angle()
    if stock.chance(0.25):  # the sun before the camera
        azimuth, elevation = float(np.arctan2(forward[2], forward[0])) + uniform(-0.5, 0.5), uniform(0.03, 0.45)
    sun = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(elevation), np.sin(azimuth) * np.cos(elevation)])
    level = uniform(0.02, 0.08) if night else uniform(0.5, 1.6)
    low = np.clip(1 - elevation / 0.4, 0, 1) * uniform(0, 1)
    sun_colour = warm * [1, 1 - 0.35 * low, 1 - 0.6 * low] * (uniform(0, 0.4) if overcast else uniform(1, 3)) * level
    blue = np.array([uniform(0.05, 0.4), uniform(0.25, 0.6), uniform(0.6, 1)])
    zenith = (np.ones(3) * uniform(0.4, 1) if overcast else blue) * level
    dusk = np.array([1, 1 - 0.3 * low, 1 - 0.55 * low])
    horizon = (
        (zenith / level * 0.4 + 0.6 * np.array([uniform(0.7, 1), uniform(0.7, 0.95), uniform(0.65, 1)])) * dusk * level
    )
    if night:
        lamp_at = np.asarray(scene.cameras[0][0]) + rng.uniform(-8, 8, (LAMPS, 3)) * [1, 0, 1] + [0, 3.5, 0]
        lamp_colour = uniform(0.5, 3) * np.array([[1, 0.8, 0.5]] * LAMPS)
    return Light(
        sun=sun,
        sun_colour=sun_colour,
        ambient_up=np.array([uniform(0.6, 1), uniform(0.7, 1), 1])
        * (uniform(0.8, 1.3) if overcast else uniform(0.12, 0.55))
        * level,
        ambient_down=np.array([0.4, 0.36, 0.3]) * uniform(0.3, 1) * level,
        zenith=zenith,
        horizon=horizon,
        ground=horizon * 0.6,
        lamp_at=lamp_at,
        lamp_colour=lamp_colour,
        fog=uniform(0.002, 0.06) if stock.chance(0.18) else (uniform(0, 0.004) if stock.chance(0.5) else 0.0),
        cover=uniform(0, 1) if not overcast else uniform(0.6, 1),
        glow=uniform(0, 0.6) if stock.chance(0.6) else 0.0,
    )


def develop(stock: Stock, rgb: F32, depth: F32) -> U8:
    """Linear light → an sRGB picture: occluded corners darker, glare, focus blur, vignette, exposure, tone curve."""
    inverse = (1 / np.clip(depth, 0.05, 1e4)).astype(np.float32)
    rgb = rgb * (1 - stock.uniform(0, 1) * occlusion(inverse))[..., None]
    if stock.chance(0.5):
        glare = cv2.GaussianBlur(np.clip(rgb - 1, 0, 4), (0, 0), stock.uniform(2, 10))
        rgb = rgb + glare * stock.uniform(0, 0.6)
    if stock.chance(0.12):
        focus = np.percentile(inverse, stock.uniform(40, 95))
        soft = cv2.GaussianBlur(rgb, (0, 0), stock.uniform(0.8, 3))
        amount = np.clip(np.abs(inverse - focus) / (focus + 0.02) * stock.uniform(0.7, 2), 0, 1)
        rgb = rgb + (soft - rgb) * cv2.GaussianBlur(amount, (0, 0), 1.5)[..., None]
    if stock.chance(0.4):
        height, width = depth.shape
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        rgb = rgb * (1 - stock.uniform(0, 0.35) * (x**2 + y**2))[..., None]
    # A meter's middle grey is 18 %; a tenth of the pictures are badly exposed.
    target = stock.uniform(0.1, 0.34) if stock.chance(0.9) else stock.uniform(0.03, 0.9)
    exposed = np.percentile(rgb.mean(-1), (50, 88)) + 1e-3
    rgb = rgb * min(target / exposed[0], target * stock.uniform(2.2, 6) / exposed[1])
    if stock.chance(0.7):
        white = stock.uniform(1.2, 3)
        rgb = rgb * (1 + rgb / white**2) / (1 + rgb) * 1.25  # Reinhard et al. 2002, equation 4
    rgb = np.clip(np.nan_to_num(rgb), 0, 1)
    if stock.chance(0.5):
        rgb = rgb + stock.uniform(0, 0.8) * (rgb * rgb * (3 - 2 * rgb) - rgb)  # an S-shaped curve: more contrast
    encoded = rgb ** (1 / 2.2)
    return (encoded * 255 + 0.5).astype(np.uint8)


def occlusion(inverse: F32) -> F32:
    """Share of the light hidden by the surroundings, 0 to 0.7: slightly nearer neighbours count, outlines do not."""
    total = np.zeros_like(inverse)
    for radius in (4 * inverse.shape[1] / WIDTH, 14 * inverse.shape[1] / WIDTH):
        for angle in np.arange(8) * np.pi / 4 + round(radius):
            shift = np.float32([[1, 0, radius * np.cos(angle)], [0, 1, radius * np.sin(angle)]])
            other = cv2.warpAffine(inverse, shift, inverse.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
            nearer = other / inverse - 1
            total += np.where(nearer < 0.2, np.clip(nearer - 0.005, 0, 0.08), 0)
    hidden = cv2.GaussianBlur(total, (0, 0), 1.2)
    return np.where(inverse < 0.01, 0, np.clip(hidden, 0, 0.7)).astype(np.float32)


def worth_keeping(rgb: U8, depth: F32) -> bool:
    """False for images that are black, white or blank, a wall against the lens, mostly sky, or one flat plane."""
    mean = float(rgb.mean())
    if not 14 < mean < 242 or rgb.std() < 10 or (depth < 0.25).mean() > 0.25 or (depth < 9e3).mean() < 0.2:
        return False
    inverse = (1 / np.clip(depth[::4, ::4], 0.05, 1e4)).astype(np.float32)
    low, high = np.percentile(inverse, [5, 95])
    bends = np.abs(cv2.Laplacian(inverse, cv2.CV_32F)) > 0.03 * (high - low + 1e-6)
    return bool(bends.mean() > 0.02)


def render_shard(seed: int, stock: Stock, renderer: "Renderer", path: Path, count: int = SHARD) -> None:
    """Fill one shard of `count` pictures; the file written last marks it as complete."""
    renderer.forget(stock.restart(seed))
    rgb = np.zeros((count, renderer.height, renderer.width, 3), np.uint8)
    inverse = np.zeros((count, renderer.height, renderer.width), np.float16)
    kinds = list(SHARES)
    shares = np.array([SHARES[kind] for kind in kinds])
    done = 0
    while done < count:
        scene = builder(str(stock.rng.choice(kinds, p=shares / shares.sum())))(stock)
        for eye, target in scene.cameras:
            forward = (target - eye) / np.linalg.norm(target - eye)
            light = draw_light(stock, scene, forward)
            up = (stock.rng.normal(0, 0.06), 1.0, stock.rng.normal(0, 0.02))
            fovy = stock.uniform(*scene.field_of_view)
            linear, depth = renderer.render(scene, eye, target, light, fovy, up)
            picture = develop(stock, linear, depth)
            if not worth_keeping(picture, depth):
                continue
            rgb[done] = picture
            inverse[done] = np.where(depth > 9e3, 0, 1 / np.clip(depth, 0.05, None))
            done += 1
            if stock.chance(0.2):
                stock.keep_render(picture)
            if done == count:
                break
        renderer.forget(stock.forget_fresh())
    np.save(path.with_suffix(".rgb.npy"), rgb)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, inverse)
    partial.rename(path.with_suffix(".inverse.npy"))


def builder(name: str) -> Callable[[Stock], Scene]:
    """`rooms.kitchen` → that function."""
    import importlib

    module, _, function = name.partition(".")
    made: Callable[[Stock], Scene] = getattr(importlib.import_module(module), function)
    return made


def work(job: tuple[Path, Path, list[int]]) -> None:
    """Render these shards of one group, in a process that ends with them."""
    folder, work_folder, seeds = job
    os.environ["LP_NUM_THREADS"] = "0"  # llvmpipe: one process a core instead of threads in each
    cv2.setNumThreads(1)
    from renderer import Renderer

    stock = Stock(load(work_folder), seed=10**6 + seeds[0] // GROUP)
    renderer = Renderer(stock, WIDTH, HEIGHT)
    for seed in seeds:
        started = time.monotonic()
        render_shard(seed, stock, renderer, folder / f"{seed:06d}")
        print(f"shard {seed}: {(time.monotonic() - started) / SHARD:.3f} s a picture", flush=True)


def main() -> None:
    """Render every shard that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of everything made on the way")
    parser.add_argument("--pictures", type=int, default=20_000, help="in shards of 100")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1, help="of the first shard")
    parser.add_argument("--held-out", action="store_true", help="render pictures to choose checkpoints by")
    options = parser.parse_args()
    folder = options.work / ("held_out" if options.held_out else "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    first = options.seed + (HELD_OUT_SEED if options.held_out else 0)
    wanted = range(first, first + -(-options.pictures // SHARD))
    missing = [seed for seed in wanted if not (folder / f"{seed:06d}.inverse.npy").exists()]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} shards are there", flush=True)
    jobs = [(folder, options.work, list(seeds)) for _, seeds in groupby(missing, key=lambda seed: seed // GROUP)]
    with multiprocessing.get_context("spawn").Pool(options.workers, maxtasksperchild=1) as pool:
        for _ in pool.imap_unordered(work, jobs):
            pass


if __name__ == "__main__":
    main()

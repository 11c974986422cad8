"""Renders and trains at once on a machine with a GPU that is lent for minutes.

    python scripts/starter/device.py --bundle BUNDLE --out OUT --seconds 500 [--render-seconds 170] [--workers 14]

Starts from stream/data/starter.safetensors. Worker processes render into a temporary folder until their time is over;
the trainer takes finished shards into the device's memory and trains on what is there, so neither waits for the other.
The schedule follows the clock: the run ends, with its weights written, after `--seconds`. Writes to OUT: averaged
weights (fp16) now and then, log.jsonl, and held-out.npz to choose among them. Needs torch, numpy, OpenCV, safetensors
and moderngl. Without a GPU it does the same slowly: give small numbers.
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import asdict
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from assets import load
from device_data import Pool, crop, disturb, moved, read_real
from losses import depth_loss, unsteadiness
from metrics import Score, mean, score
from render import render_shard
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from world import Stock

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from stream.models.starter import Starter  # noqa: E402

HELD_OUT = 100
SEED = 7_500_000
LEFT_OUT = frozenset(
    (
        "apc_scene0000",
        "clear_0123",
        "depthy_shelf",
        "depthy_tunnel",
        "dgp_1_01",
        "dgp_1_05",
        "dgp_1_06",
        "felix_openposeimage_i1",
        "keti_boxes",
        "nv6_green_bowl",
        "nv6_mustard",
        "promptda",
        "tsdf_old",
        "tum_fr1_360",
        "ufsec_arena",
    )
)
"""Scenes of measured pictures that are never trained on: of every kind; of the streets, one of two drives."""
MEAN, STD = 127 / 255, 128 / 255
SIZES = [*[(192, 256)] * 6, *[(256, 192)] * 2, (192, 320), (224, 224), (288, 384)]
REAL_SHARE = 1 / 12
RATE, ENCODER_RATE = 1.6e-3, 0.2
STEADY_FROM = 0.5
"""The share of the time after which half of each batch are moved copies."""
STEADINESS = 0.7
GRADIENT, ORDINAL, OUTLINE = 1.5, 0.15, 0.5
AVERAGE = 0.995
CHECKPOINTS = (0.01, 0.3, 0.6, 0.8)
"""Shares of the time at which weights are written; the first shows what the start was worth."""


def render_until(number: int, folder: Path, work: Path, size: tuple[int, int], shard: int, seconds: float) -> None:
    """Render shards, the first worker the held-out pictures first, until the time is over."""
    os.environ["LP_NUM_THREADS"] = "0"
    os.nice(10)
    cv2.setNumThreads(1)
    from renderer import Renderer

    ends = time.monotonic() + seconds
    seed = SEED + 10_000 * number
    stock = Stock(load(work), seed)
    renderer = Renderer(stock, *size)
    if number == 0:
        print(f"rendering on {renderer.device_name}", flush=True)
    while time.monotonic() < ends:
        render_shard(seed, stock, renderer, folder / f"{seed:08d}", shard)
        seed += 1


class Renders:
    """What the workers have rendered, moved to the device; of the first worker, as much as is to be held out."""

    def __init__(self, folder: Path, training: Pool, held_out: Pool) -> None:
        self._folder, self._training, self._held_out = folder, training, held_out

    def collect(self) -> None:
        """Take over every finished shard."""
        for path in sorted(self._folder.glob("[0-9]*.inverse.npy")):
            colours = path.with_name(path.name.replace("inverse", "rgb"))
            rgb, inverse = np.load(colours), np.load(path)
            path.unlink()
            colours.unlink()
            first = int(path.name.split(".")[0]) < SEED + 10_000
            full = self._held_out.count == len(self._held_out.rgb)
            (self._held_out if first and not full else self._training).add(rgb, inverse)


class Trainer:
    """The network, its average, and the optimiser."""

    def __init__(self, device: torch.device, weights: Path) -> None:
        self.device = device
        self.network = Starter().to(device, memory_format=torch.channels_last)
        last = self.network.head[2]

        def exact(x: Tensor) -> Tensor:
            """The last convolution in float32 under autocast: bfloat16 has 8 bits."""
            with torch.autocast(device.type, enabled=False):
                return F.conv2d(x.float(), last.weight, last.bias)

        last.forward = exact  # type: ignore[method-assign]
        filled = self.network.load_state_dict({k: v.float() for k, v in load_file(weights).items()}, strict=False)
        if filled.unexpected_keys or any(not key.endswith("num_batches_tracked") for key in filled.missing_keys):
            raise SystemExit(f"{weights}: not the network's weights: {filled}")
        encoder = list(self.network.enc.parameters())
        inner = {id(parameter) for parameter in encoder}
        decoder = [parameter for parameter in self.network.parameters() if id(parameter) not in inner]
        groups: list[dict[str, Any]] = [{"params": decoder, "share": 1.0}, {"params": encoder, "share": ENCODER_RATE}]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=0.02, fused=True)
        self._guard = torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=10**9)  # skips steps with NaN
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.steps = self.samples = 0

    def step(self, renders: Pool, real: Pool, batch: int, done: float) -> Tensor:
        """One batch at the share `done` of the schedule; → the loss."""
        steady = done > STEADY_FROM
        height, width = SIZES[int(np.random.default_rng(self.steps).integers(len(SIZES)))]
        pictures = max(2, round(batch * 192 * 256 / (height * width) / 2) * 2)  # one size a shape, for cuDNN
        batch = pictures // 2 if steady else pictures
        from_real = max(1, round(batch * REAL_SHARE))
        with torch.no_grad():
            parts = [
                crop(*renders.draw(batch - from_real), height, width, 0.5),
                crop(*real.draw(from_real), height, width, 0.4),
            ]
            clean, inverse = (torch.cat(part) for part in zip(*parts, strict=True))
            rgb = disturb(clean, inverse)
            if steady:
                copies, their_inverse, grid = moved(rgb, inverse)
                rgb, inverse = torch.cat([rgb, copies]), torch.cat([inverse, their_inverse])
        self._set_rate(done)
        self.network.train()
        for module in self.network.enc.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # ImageNet's statistics, as ever
        predicted = self._predict(rgb)
        total = depth_loss(predicted, inverse, GRADIENT, ORDINAL, OUTLINE)
        if steady:
            total = total + STEADINESS * unsteadiness(predicted[:batch], predicted[batch:], grid)
        self.optimizer.zero_grad(set_to_none=True)
        self._guard.scale(total).backward()
        self._guard.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._guard.step(self.optimizer)
        self._guard.update()
        self.steps += 1
        self.samples += len(rgb)
        self._average()
        return total.detach()

    def _predict(self, rgb: Tensor) -> Tensor:
        x = ((rgb - MEAN) / STD).to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            out = self.network(x)
        return out.float()

    def _set_rate(self, done: float) -> None:
        rate = RATE * min(1.0, (self.steps + 1) / 200) * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1))) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(AVERAGE, 1 - 1 / (self.steps / 10 + 1))
        ours = self.network.state_dict()
        floats = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in floats], [ours[name] for name in floats], 1 - keep)

    def averaged(self) -> Starter:
        """The averaged network, for inference."""
        network = Starter().to(self.device).eval()
        network.load_state_dict(self.average)
        return network

    def save(self, path: Path, note: dict[str, Any]) -> None:
        """Write the averaged weights in half precision."""
        half = {
            k: v.half().cpu().contiguous() for k, v in self.average.items() if not k.endswith("num_batches_tracked")
        }
        save_file(half, path, metadata={key: json.dumps(value) for key, value in note.items()})


@torch.inference_mode()
def evaluate(network: Starter, pool: Pool, most: int, *, affine: bool) -> tuple[Score, float]:
    """Mean score of the first `most` pictures at 256×192, and the mean unsteadiness; `affine`: no unit."""
    found, trembling = [], []
    for index in range(min(most, pool.count)):
        rgb, inverse = pool.rgb[index : index + 1].float() / 255, pool.inverse[index].float().cpu().numpy()
        small = F.interpolate(rgb, (192, 256), mode="bilinear", antialias=True, align_corners=False)
        torch.manual_seed(index)
        copy, _, grid = moved(small, torch.zeros_like(small[:, 0]))
        still, other = network((small - MEAN) / STD), network((copy - MEAN) / STD)
        trembling.append(float(unsteadiness(still, other, grid)))
        truth = inverse if affine else np.clip(inverse, 1 / 80, None)
        full = cv2.resize(still[0].float().cpu().numpy(), truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
        found.append(score(full.astype(float), truth.astype(float), farthest=None if affine else 80.0))
    return mean(found), float(np.mean(trembling))


def keep_held_out(pool: Pool, path: Path) -> None:
    """Write the held-out renders at 256×192, to choose among the weights elsewhere."""
    rgb = F.interpolate(pool.rgb[: pool.count].float(), (192, 256), mode="area").round().to(torch.uint8)
    inverse = F.interpolate(pool.inverse[: pool.count, None].float(), (192, 256), mode="nearest-exact")[:, 0]
    np.savez_compressed(path, rgb=rgb.permute(0, 2, 3, 1).cpu().numpy(), inverse=inverse.half().cpu().numpy())


def train(options: argparse.Namespace, folder: Path, started: float) -> None:
    """Take renders in and train until the time is over."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = False  # trying took half a minute for each size of a step
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(SEED)
    width, height = options.size
    renders, held_out = Pool.empty(options.most, height, width, device), Pool.empty(HELD_OUT, height, width, device)
    real, left_out = read_real(options.bundle / "real", LEFT_OUT, device)
    store, trainer = Renders(folder, renders, held_out), Trainer(device, options.weights)
    while renders.count < options.least or not held_out.count:
        if time.monotonic() - started > options.seconds / 2:
            raise SystemExit(f"only {renders.count} renders in half of the time: see the workers' output")
        time.sleep(0.5)
        store.collect()
    begun, ends = time.monotonic(), started + options.seconds
    print(f"{renders.count} renders after {begun - started:.0f} s; training on {device}", flush=True)
    next_look, taken, recent, number = begun, begun, [], 0
    while (now := time.monotonic()) < ends:
        done = (now - begun) / (ends - begun)
        recent.append(trainer.step(renders, real, options.batch, done))
        if now - taken > 2:
            store.collect()
            taken = now
        if number < len(CHECKPOINTS) and done > CHECKPOINTS[number]:
            number += 1
            trainer.save(options.out / f"weights-{number}.safetensors", {"samples": trainer.samples})
            report(trainer, held_out, left_out, options)
        if now > next_look:
            loss = float(torch.stack(recent).nanmean())
            recent.clear()
            speed = trainer.samples / (time.monotonic() - begun)
            line = f"{renders.count} renders, {trainer.samples} samples, {speed:.0f} a second, loss {loss:.4f}"
            print(f"{now - started:.0f} s: {line}", flush=True)
            next_look = now + options.seconds / 25
    trainer.save(options.out / "weights-last.safetensors", {"samples": trainer.samples, "renders": renders.count})
    report(trainer, held_out, left_out, options)
    keep_held_out(held_out, options.out / "held-out.npz")


def report(trainer: Trainer, held_out: Pool, left_out: Pool, options: argparse.Namespace) -> None:
    """Score the averaged weights on held-out renders and on measured pictures of scenes left out; log it."""
    network, row = trainer.averaged(), {"samples": trainer.samples}
    for name, pool, affine in (("renders", held_out, False), ("real", left_out, True)):
        found, trembling = evaluate(network, pool, options.look, affine=affine)
        row[name] = {key: round(value, 4) for key, value in asdict(found).items()} | {"unsteady": round(trembling, 4)}
    with (options.out / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def main() -> None:
    """Start the workers and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="what bundle.py wrote; `real` in it")
    parser.add_argument("--work", type=Path, required=True, help="folder of assets.pickle")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--weights", type=Path, default=ROOT / "stream/data/starter.safetensors", help="to start from")
    parser.add_argument("--seconds", type=float, default=500, help="for everything")
    parser.add_argument("--render-seconds", type=float, default=170, help="after which workers stop")
    parser.add_argument("--workers", type=int, default=14, help="processes that render")
    parser.add_argument("--batch", type=int, default=192, help="pictures of 256×192 in a batch")
    parser.add_argument("--most", type=int, default=24_000, help="renders that are kept in memory")
    parser.add_argument("--least", type=int, default=600, help="renders to begin with")
    parser.add_argument("--shard", type=int, default=40, help="renders in a file")
    parser.add_argument("--look", type=int, default=60, help="pictures of each kind in a report")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 384), help="width and height of a render")
    options = parser.parse_args()
    started = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        workers: list[BaseProcess] = []
        for number in range(options.workers):
            job = (number, Path(folder), options.work, tuple(options.size), options.shard, options.render_seconds)
            workers.append(context.Process(target=render_until, args=job, daemon=True))
            workers[-1].start()
        try:
            train(options, Path(folder), started)
        finally:
            for worker in workers:
                worker.terminate()
                worker.join()
    print(f"done after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Renders and trains at once on a machine with a GPU that is lent for minutes.

    python scripts/starter/device.py --bundle BUNDLE --out OUT --seconds 500 [--render-seconds 170] [--workers 14]

Starts from stream/data/starter.safetensors. Worker processes render into a temporary folder until their time is over;
the trainer takes finished shards into the device's memory and trains on what is there, so neither waits for the other.
The schedule follows the clock: the run ends, with its weights written, after `--seconds`. Writes to OUT: averaged
weights (fp16) now and then, log.jsonl, and held-out.npz to choose among them. Needs torch, numpy, OpenCV, safetensors
and moderngl. Without a GPU it does the same slowly, with kernels.py: give small numbers.

    python scripts/starter/device.py --bundle BUNDLE --work FOLDER --out OUT --seconds 3000 --batch 12 \\
        --renders FOLDER --teacher A.safetensors B.safetensors --mix 0.2 0.4 1 1

`--renders` takes pictures that were rendered before. `--teacher`: the photographs' depth is guessed once, by these
weights together, at several sizes and mirrored, which is better than any of them at one size; the student learns it.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, astuple, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from assets import load
from device_data import Pool, crop, disturb, moved, read_photos, read_real
from losses import depth_loss, normalised, unsteadiness
from metrics import Score, mean, score
from render import render_shard
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from world import Stock

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from stream.models.layers import SameConv2d, fold_for_inference, same_padding  # noqa: E402
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
INPUT = (288, 384)
"""Height and width of most batches."""
SIZES = [*[INPUT] * 6, *[(384, 288)] * 2, *[(256, 448)] * 2]
"""Few: the first step of each takes 16 s, in which cuDNN compiles its kernels."""
LABELLED = (0.25, 0.6)
"""Shares of the time at which the averaged network, as its own teacher, guesses the depth of the photographs."""
TEACHER_SIZES = ((192, 256), INPUT, (384, 512))
FIXED_STAGES = 2
"""On a CPU, the encoder's first stages keep their weights: their gradients took a third of a step's time."""
FEW = 32
"""In smaller batches norms keep their statistics."""
RATE, ENCODER_RATE = 1.6e-3, 0.2
STEADY_FROM = 0.5
"""The share of the time after which half of each batch are moved copies."""
STEADINESS = 0.7
GRADIENT, ORDINAL, OUTLINE = 1.5, 0.15, 0.5
AVERAGE = 0.998
CHECKPOINTS = (0.01, 0.3, 0.6, 0.8)
"""Shares of the time at which weights are written; the first shows what the start was worth."""


@dataclass(frozen=True)
class Mix:
    """What a batch is made of, and how much guessed depth counts. Its outlines are soft, so steps across outlines are
    learned from renders and measured pictures alone."""

    real: float = 0.1
    photos: float = 0.125
    weight: float = 0.5
    gradient: float = 0.3


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
        for path, colours in self._shards(self._folder):
            self._add(path, colours, first=int(path.name.split(".")[0]) < SEED + 10_000)
            path.unlink()
            colours.unlink()

    def read(self, folder: Path) -> None:
        """Take every shard of a folder, the first ones to be held out."""
        for path, colours in self._shards(folder):
            self._add(path, colours, first=True)

    def _shards(self, folder: Path) -> list[tuple[Path, Path]]:
        paths = sorted(folder.glob("[0-9]*.inverse.npy"))
        return [(path, path.with_name(path.name.replace("inverse", "rgb"))) for path in paths]

    def _add(self, path: Path, colours: Path, *, first: bool) -> None:
        full = self._held_out.count == len(self._held_out.rgb)
        (self._held_out if first and not full else self._training).add(np.load(colours), np.load(path))


def fill(network: Starter, weights: Path) -> Starter:
    """Load a file of weights; returns the network."""
    filled = network.load_state_dict({k: v.float() for k, v in load_file(weights).items()}, strict=False)
    if filled.unexpected_keys or any(not key.endswith("num_batches_tracked") for key in filled.missing_keys):
        raise SystemExit(f"{weights}: not the network's weights: {filled}")
    return network


def _teacher(weights: Path) -> Starter:
    network = fill(Starter(), weights).eval()
    fold_for_inference(network)
    return network


def _pad_before(conv: SameConv2d) -> None:
    """Pad the picture instead of the kernel: cuDNN is slow with kernels of even sides."""

    def forward(x: Tensor) -> Tensor:
        (kernel_h, kernel_w), (stride_h, stride_w) = conv.kernel_size, conv.stride
        down = same_padding(x.shape[-2], kernel_h, stride_h)
        across = same_padding(x.shape[-1], kernel_w, stride_w)
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return F.conv2d(x, conv.weight, None, conv.stride, 0, 1, conv.groups)

    conv.forward = forward  # type: ignore[method-assign]


class Trainer:
    """The network, its average, and the optimiser."""

    def __init__(self, device: torch.device, weights: Path, mix: Mix, rate: float = RATE) -> None:
        self.device, self.mix, self.rate = device, mix, rate
        self.network = Starter().to(device, memory_format=torch.channels_last)
        if device.type == "cpu":
            from kernels import CompiledRelu6, use_compiled

            self._faster: Any = CompiledRelu6()
            use_compiled(self.network)
            for module in (self.network.enc.conv_stem, self.network.enc.bn1, *self.network.enc.blocks[:FIXED_STAGES]):
                module.requires_grad_(False)
        else:
            self._faster = nullcontext()
            for module in self.network.modules():
                if isinstance(module, SameConv2d):
                    _pad_before(module)
        last = self.network.head[2]

        def exact(x: Tensor) -> Tensor:
            """The last convolution in float32 under autocast: bfloat16 has 8 bits."""
            with torch.autocast(device.type, enabled=False):
                return F.conv2d(x.float(), last.weight, last.bias)

        last.forward = exact  # type: ignore[method-assign]
        fill(self.network, weights)
        encoder = [parameter for parameter in self.network.enc.parameters() if parameter.requires_grad]
        inner = {id(parameter) for parameter in self.network.enc.parameters()}
        decoder = [parameter for parameter in self.network.parameters() if id(parameter) not in inner]
        groups: list[dict[str, Any]] = [{"params": decoder, "share": 1.0}, {"params": encoder, "share": ENCODER_RATE}]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.02, fused=True)
        self._guard = torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=10**9)  # skips steps with NaN
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.steps = self.samples = 0

    def step(self, renders: Pool, real: Pool, photos: Pool | None, batch: int, done: float) -> Tensor:
        """One batch at the share `done` of the schedule; → the loss. `photos`: with guessed depth."""
        steady = done > STEADY_FROM
        height, width = SIZES[int(np.random.default_rng(self.steps).integers(len(SIZES)))]
        pictures = max(4, round(batch * INPUT[0] * INPUT[1] / (height * width) / 2) * 2)  # one size a shape, for cuDNN
        batch = pictures // 2 if steady else pictures
        from_real = max(1, round(batch * self.mix.real))
        guessed = round(batch * self.mix.photos) if photos else 0
        with torch.no_grad():
            parts = [
                crop(*renders.draw(batch - from_real - guessed), height, width, 0.5),
                crop(*real.draw(from_real), height, width, 0.4),
            ]
            if photos and guessed:
                parts.append(crop(*photos.draw(guessed), height, width, 0.4))
            clean, inverse = (torch.cat(part) for part in zip(*parts, strict=True))
            rgb = disturb(clean, inverse)
            if steady:
                copies, their_inverse, grid = moved(rgb, inverse)
                rgb, inverse = torch.cat([rgb, copies]), torch.cat([inverse, their_inverse])
        self._set_rate(done)
        self.network.train()
        for module in (self.network if pictures < FEW else self.network.enc).modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # the encoder keeps ImageNet's statistics, as ever
        predicted = self._predict(rgb)
        guess = torch.arange(len(rgb), device=self.device) % batch >= batch - guessed
        total = depth_loss(predicted[~guess], inverse[~guess], GRADIENT, ORDINAL, OUTLINE)
        if guessed:
            theirs = depth_loss(predicted[guess], inverse[guess], self.mix.gradient, ORDINAL, 0)
            total = total + self.mix.weight * theirs
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
        with self._faster, torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            out = self.network(x)
        return out.float()

    def _set_rate(self, done: float) -> None:
        rate = self.rate * min(1.0, (self.steps + 1) / 200) * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1))) / 2)
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
def guess_depth(networks: list[Starter], photos: Pool) -> None:
    """Fill the pool's inverse depth, 0 to 1, with the networks' mean guess at several sizes, mirrored or not."""
    with torch.backends.cudnn.flags(enabled=False):  # compiles nothing for sizes that are seen once
        for start in range(0, photos.count, 32):
            rows = slice(start, min(start + 32, photos.count))
            total = torch.zeros_like(photos.inverse[rows], dtype=torch.float32)
            for size in TEACHER_SIZES:
                small = F.interpolate(photos.rgb[rows].float() / 255, size, mode="bilinear", antialias=True)
                for network, mirrored in itertools.product(networks, (False, True)):
                    x = (small.flip(-1) if mirrored else small).sub(MEAN).div(STD)
                    y = network(x.to(memory_format=torch.channels_last))
                    y = F.interpolate((y.flip(-1) if mirrored else y)[:, None], total.shape[1:], mode="bilinear")
                    total += normalised(y[:, 0], torch.ones_like(total, dtype=torch.bool))
            low, high = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
            photos.inverse[rows] = (total - low) / (high - low).clamp(min=1e-6)


@torch.inference_mode()
def evaluate(network: Starter, pool: Pool, most: int, *, affine: bool) -> tuple[Score, float]:
    """Mean score of the first `most` pictures at `INPUT`, and the mean unsteadiness; `affine`: no unit."""
    found, trembling = [], []
    for index in range(min(most, pool.count)):
        rgb, inverse = pool.rgb[index : index + 1].float() / 255, pool.inverse[index].float().cpu().numpy()
        small = F.interpolate(rgb, INPUT, mode="bilinear", antialias=True, align_corners=False)
        torch.manual_seed(index)
        copy, _, grid = moved(small, torch.zeros_like(small[:, 0]))
        with torch.backends.cudnn.flags(enabled=False):  # compiles nothing for a batch of one
            still, other = network((small - MEAN) / STD), network((copy - MEAN) / STD)
        trembling.append(float(unsteadiness(still, other, grid)))
        truth = inverse if affine else np.clip(inverse, 1 / 80, None)
        full = cv2.resize(still[0].float().cpu().numpy(), truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
        found.append(score(full.astype(float), truth.astype(float), farthest=None if affine else 80.0))
    return mean(found), float(np.mean(trembling))


def keep_held_out(pool: Pool, path: Path, most: int) -> None:
    """Write the first held-out renders at `INPUT`, to choose among the weights elsewhere."""
    rows = slice(0, min(most, pool.count))
    rgb = F.interpolate(pool.rgb[rows].float(), INPUT, mode="area").round().to(torch.uint8)
    inverse = F.interpolate(pool.inverse[rows, None].float(), INPUT, mode="nearest-exact")[:, 0]
    np.savez_compressed(path, rgb=rgb.permute(0, 2, 3, 1).cpu().numpy(), inverse=inverse.half().cpu().numpy())


def train(options: argparse.Namespace, folder: Path, started: float) -> None:
    """Take renders in and train until the time is over."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = False  # trying took half a minute for each size of a step
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(options.seed)
    width, height = options.size
    renders, held_out = Pool.empty(options.most, height, width, device), Pool.empty(HELD_OUT, height, width, device)
    real, left_out = read_real(options.bundle / "real", LEFT_OUT, device)
    photos = read_photos(options.bundle / "photos", device) if (options.bundle / "photos").is_dir() else None
    store = Renders(folder, renders, held_out)
    trainer = Trainer(device, options.weights, Mix(*options.mix), options.rate)
    if options.renders:
        store.read(options.renders)
    if photos and options.teacher:
        guess_depth([_teacher(file).to(device) for file in options.teacher], photos)
    while renders.count < options.least or not held_out.count:
        if time.monotonic() - started > options.seconds / 2:
            raise SystemExit(f"only {renders.count} renders in half of the time: see the workers' output")
        time.sleep(0.5)
        store.collect()
    begun, ends = time.monotonic(), started + options.seconds
    print(f"{renders.count} renders after {begun - started:.0f} s; training on {device}", flush=True)
    next_look, taken, recent, number, labelled = begun, begun, [], 0, 0
    while (now := time.monotonic()) < ends:
        done = (now - begun) / (ends - begun)
        if photos and not options.teacher and labelled < len(LABELLED) and done > LABELLED[labelled]:
            labelled += 1
            guess_depth([trainer.averaged()], photos)
            print(f"{time.monotonic() - started:.0f} s: guessed {photos.count} photographs", flush=True)
        recent.append(trainer.step(renders, real, photos if labelled or options.teacher else None, options.batch, done))
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
    keep_held_out(held_out, options.out / "held-out.npz", options.look)


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
    parser.add_argument("--batch", type=int, default=96, help="pictures of 384×288 in a batch")
    parser.add_argument("--most", type=int, default=24_000, help="renders that are kept in memory")
    parser.add_argument("--least", type=int, default=600, help="renders to begin with")
    parser.add_argument("--shard", type=int, default=40, help="renders in a file")
    parser.add_argument("--look", type=int, default=60, help="pictures of each kind in a report")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), help="width and height of a render")
    parser.add_argument("--renders", type=Path, help="shards that are there already; nothing is rendered")
    parser.add_argument("--teacher", type=Path, nargs="+", default=[], help="weights that guess photographs' depth")
    parser.add_argument("--seed", type=int, default=SEED, help="of the training; runs of several can be averaged")
    parser.add_argument("--rate", type=float, default=RATE, help="of learning; the encoder's is a fifth")
    parser.add_argument("--mix", type=float, nargs=4, default=astuple(Mix()), help="see Mix")
    options = parser.parse_args()
    started = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        workers: list[BaseProcess] = []
        for number in range(0 if options.renders else options.workers):
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

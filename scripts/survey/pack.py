"""Writes what is true of a scene as `stream.survey.builtin` reads it.

Surfaces of boxes, floors and walls are planes, and a plane's disparity is linear in the pixel's position: three numbers
each. Only what is curved is stored by the pixel, as codes of the square root of disparity, so that far things keep
their digits. Invariant: a code is the value at the pixel's centre, never a mean.
"""

import json
from pathlib import Path

import cv2
import numpy as np
from painter import Found, look_at
from stage import CLOUD, F64, SKY, Label, Stage

CODES = 16383
"""Two bits more would cost a quarter more bytes; an error of 6e-5 of the nearest disparity is left."""
THIN_PX = 13
"""Parts of thin things that are wider in the picture are not marked as thin."""
SMALLEST_PLANE_PX = 60
"""Planes that show fewer pixels are stored like anything else, unless findings look at them."""


def pack(stage: Stage, found: Found, folder: Path, name: str) -> None:
    """Write NAME.labels.png, NAME.depth.png and NAME.json."""
    label = np.round(found.label).astype(np.int32)
    is_thin = np.array([one.thin for one in stage.labels])[label]
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (THIN_PX, THIN_PX))
    wide = cv2.morphologyEx(is_thin.astype(np.uint8), cv2.MORPH_OPEN, disc) > 0
    counts = np.bincount(label.ravel(), minlength=len(stage.labels))
    rows: dict[tuple[object, ...], int] = {}
    described: list[dict[str, object]] = []
    compact = np.zeros(label.shape, np.int32)
    for number in np.flatnonzero(counts):
        here = label == number
        for part, thin in ((here & ~wide, stage.labels[number].thin), (here & wide, False)):
            if not part.any():
                continue
            row = _row(stage, int(number), stage.labels[number], thin=thin, pixels=int(counts[number]))
            key = tuple(map(str, row.items()))
            if key not in rows:
                rows[key] = len(described)
                described.append(row)
            compact[part] = rows[key]
    disparity = np.where(label <= CLOUD, 0.0, 1 / found.depth.astype(np.float64))
    _check(disparity, compact, described)
    nearest = float(disparity.max())
    codes = np.round(np.sqrt(disparity / nearest) * CODES).astype(np.int64)
    free = np.array(["plane_at" in row for row in described])[compact]
    _save(folder / f"{name}.labels.png", compact.astype(np.uint8 if len(described) < 256 else np.uint16))
    _save(folder / f"{name}.depth.png", residuals(codes, free))
    facts = {"size": [*label.shape], "codes": CODES, "nearest": nearest, "labels": described}
    text = json.dumps(facts, separators=(",", ":")).replace("},{", "},\n{")
    (folder / f"{name}.json").write_text(text + "\n")


def residuals(codes: np.ndarray, free: np.ndarray) -> np.ndarray:
    """What two running sums, down and across, turn back into `codes` modulo 2¹⁶; where `free`, anything may come out.

    There the sums go on as they were, which is a zero.
    """
    height, width = codes.shape
    out = np.zeros((height, width), np.int64)
    above = np.zeros(width, np.int64)
    for y in range(height):
        row, free_row = codes[y], free[y]
        down = row - above  # of the column's sum
        known = np.flatnonzero(~free_row)
        steps = np.zeros(width, np.int64)
        if known.size:
            steps[known] = np.diff(down[known], prepend=0)
        out[y] = steps
        above = above + np.cumsum(steps)
    return (out % 65536).astype(np.uint16)


def _row(stage: Stage, number: int, label: Label, *, thin: bool, pixels: int) -> dict[str, object]:
    row: dict[str, object] = {}
    if number in (SKY, CLOUD):
        row = {"sky": True, "clouds": number == CLOUD, "plane_at": [0.0, 0.0, 0.0]}
        return {key: value for key, value in row.items() if value is not False}
    if label.flat and (label.plane or pixels >= SMALLEST_PLANE_PX):
        row["plane_at"] = [float(f"{k:.12g}") for k in _plane(stage, *label.flat)]
    if label.plane:
        row["plane"] = label.plane
    if label.small:
        row["small"] = label.small
    if thin:
        row["thin"] = True
    return row


def _plane(stage: Stage, normal: F64, offset: float) -> tuple[float, float, float]:
    """a, b, c of the disparity a·column + b·row + c of a plane."""
    camera = stage.camera
    width, height = camera.size_wh
    eye = np.asarray(camera.eye, float)
    view, forward = look_at(eye, np.asarray(camera.target, float), (0, 1, 0))
    across, up = normal @ view[0, :3], normal @ view[1, :3]
    tall = np.tan(np.radians(camera.fovy) / 2)
    wide = tall * width / height
    below = offset - normal @ eye
    c = normal @ forward + (1 / width - 1) * wide * across + (1 - 1 / height) * tall * up
    return 2 * wide * across / width / below, -2 * tall * up / height / below, c / below


def _check(disparity: F64, compact: np.ndarray, described: list[dict[str, object]]) -> None:
    y, x = np.mgrid[: disparity.shape[0], : disparity.shape[1]]
    for number, row in enumerate(described):
        if "plane_at" in row:
            here = compact == number
            a, b, c = row["plane_at"]  # type: ignore[misc]
            apart = np.abs(a * x[here] + b * y[here] + c - disparity[here])
            if apart.max() > 2e-4 * disparity.max():
                raise ValueError(f"label {number} is no plane: {row}, apart {apart.max()}")


def _save(path: Path, image: np.ndarray) -> None:
    flags = [cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED]
    best = min(
        (
            cv2.imencode(".png", image, [*flags[:2], flags[2], strategy, cv2.IMWRITE_PNG_FILTER, kind])[1].tobytes()
            for strategy in (cv2.IMWRITE_PNG_STRATEGY_DEFAULT, cv2.IMWRITE_PNG_STRATEGY_FILTERED)
            for kind in (cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_FILTER_UP)
        ),
        key=len,
    )
    path.write_bytes(best)

"""Reports of surveys as they may come out: real pictures of made-up scenes, and a record with everything in it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stream.depthdata.alignment import fitted
from stream.frames import DepthKind, DepthMap
from stream.media import cv2
from stream.survey.findings.base import Finding
from stream.survey.page import page
from stream.survey.pictures import PictureNames, write_pictures
from stream.survey.record import (
    AnswersRow,
    FindingRow,
    ModelRow,
    NumberRow,
    PhotoRow,
    PlaceRow,
    SkippedRow,
    Survey,
)
from stream.survey.scene import Scene, Truth
from stream.survey.summary import summarised

MODELS = ("starter", "depth_anything_v2_metric_hypersim_vits", "midas_v21_small_256")
ODD_NAMES = (
    "a b#1 ü%.jpg",
    "<script>alert(1)<⁄script>.png",
    "holiday/2026 'late' & \"early\"/IMG_0001.heic",
    "a b_1 ü_.png",
)


def scene(
    name: str, size_hw: tuple[int, int] = (96, 128), *, has_truth: bool = False, models: Sequence[str] = MODELS
) -> Scene:
    """A tiled floor that recedes, and a ball before it; each model sees it a little differently."""
    height, width = size_hw
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    disparity = (0.1 + 0.6 * y).astype(np.float32)
    ball = (x - 0.4) ** 2 + (y - 0.5) ** 2 * (height / width) ** 2 < 0.03
    disparity[ball] = 0.9
    tiles = ((x * 8).astype(int) + (y * 6).astype(int)) % 2
    rgb = np.where(tiles[..., None] == 1, np.uint8(210), np.uint8(90)) * np.ones(3, np.uint8)
    rgb[ball] = (200, 60, 40)
    blurs = (1, max(1, width // 40), max(1, width // 16))
    raw: dict[str, DepthMap] = {}
    for index, model in enumerate(models):
        blurred = cv2.blur(disparity, (blurs[index % 3], blurs[index % 3])) + np.float32(0.02 * index) * tiles
        raw[model] = np.asarray((index + 1) * blurred + index, np.float32)
    truth = Truth(disparity=disparity) if has_truth else None
    reference = raw[models[0]] if truth is None else truth.disparity
    return Scene(
        name=name,
        rgb=rgb,
        maps={model: fitted(one, reference) for model, one in raw.items()},
        raw=raw,
        kinds=dict.fromkeys(models, DepthKind.RELATIVE_DISPARITY),
        truth=truth,
    )


FINDINGS = (
    FindingRow(
        key="accuracy", title="Accuracy", question="How far is depth from the truth?", unit="", better="lower",
        definition="AbsRel, the mean of |z − z*| / z* over the pixels whose true depth z* is known.",
        details={"delta_1_25": "share of the pixels with max(z/z*, z*/z) < 1.25; 1 is best"},
    ),
    FindingRow(
        key="thin", title="Thin structures", question="Do thin things stand out in depth?", unit="", better="higher",
        definition="The share of the picture's thin structures <a few pixels wide> that stand out.", details={},
    ),
    FindingRow(
        key="crispness", title="Crispness", question="How sharp are the edges of depth?", unit="px", better="lower",
        definition="The distance in which depth goes from 10 % to 90 % of a step.",
        details={"position_px": "distance between the edges of depth and of the picture"},
    ),
    FindingRow(
        key="sky", title="Sky", question="Is the sky farthest?", unit="", better="higher",
        definition="The share of the sky that is farther than everything else.", details={},
    ),
)  # fmt: skip


def photo_row(scene: Scene, folder: Path, stem: str, seed: int) -> PhotoRow:
    """The row of a photo with numbers that differ, and its pictures on the disk."""
    random = np.random.default_rng(seed)
    pictures = write_pictures(scene, folder, stem, colormap="inferno")
    models = list(scene.maps)

    def numbers(of: str, places: int, **details: float) -> dict[str, NumberRow]:
        def place(index: int) -> PlaceRow:
            left, top = random.uniform(0, 0.8, 2)
            return PlaceRow(box=(float(left), float(top), 0.12, 0.1), text=f"{of} {index + 1}: contrast <0.1 & faint")

        return {
            model: NumberRow(
                value=float(random.uniform(0.05, 0.9)), details=details, places=[place(i) for i in range(places)]
            )
            for model in models
        }

    findings = {
        "thin": AnswersRow(basis="truth" if scene.truth is not None else "picture", numbers=numbers("spoke", 2)),
        "crispness": AnswersRow(basis="models", numbers=numbers("edge", 1, position_px=1.25)),
    }
    if scene.truth is not None:
        findings = {"accuracy": AnswersRow(basis="truth", numbers=numbers("", 0, delta_1_25=0.875)), **findings}
    return PhotoRow(
        name=scene.name,
        size=scene.size,
        has_truth=scene.truth is not None,
        pictures=pictures.files,
        scale=pictures.scale,
        findings=findings,
    )


def model_row(name: str, *, is_published: bool | None = True, weights_file: str = "") -> ModelRow:
    """A model as it may have run."""
    return ModelRow(
        name=name, parameters_m=24.8, licence="Apache-2.0", origin="https://example.org/depth", output="metric_depth",
        weights_sha256="0" * 64, is_published=is_published, weights_file=weights_file, device="cpu", precision="fp32",
        backend="torch", load_s=0.41, first_s=0.62, frames_per_s=3.217, memory_bytes=412_000_000,
    )  # fmt: skip


def survey_of(photos: Sequence[PhotoRow], *, models: Sequence[str] = MODELS, **changes: object) -> Survey:
    """The record of a survey of these photos; the last model has weights of the user's own."""
    measured = [Finding(**dict(row), measure=lambda _: None) for row in FINDINGS]
    own = {"is_published": False, "weights_file": "my <fine> tune.pt"}
    rows = [model_row(name, **(own if name == models[-1] else {})) for name in models]  # type: ignore[arg-type]
    content: dict[str, object] = {
        "program": "depthstream 1.2.3", "source": "photos", "is_complete": True, "models": rows,
        "findings": list(FINDINGS), "photos": list(photos), "skipped": [],
        "summary": summarised(photos, measured, models), **changes,
    }  # fmt: skip
    return Survey.model_validate(content)


def write_report(
    folder: Path,
    names: Sequence[str] = ODD_NAMES,
    size_hw: tuple[int, int] = (96, 128),
    **changes: object,
) -> Survey:
    """Write `report.html` and its pictures into a folder; every second photo has a truth."""
    stems = PictureNames(names, MODELS)
    photos = []
    for index, name in enumerate(names):
        made = scene(name, size_hw, has_truth=index % 2 == 0)
        photos.append(photo_row(made, folder, f"pictures/{stems.stem(name, index)}", index))
    survey = survey_of(photos, **{"skipped": [SkippedRow(name="broken <b>.jpg", reason="is cut off")], **changes})
    (folder / "report.html").write_text(page(survey), encoding="utf-8")
    return survey

"""From single answers to the table of a survey: means over the photos, their spread, and which model is best."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from stream.compare.inference import ModelUse
from stream.survey.best import best
from stream.survey.findings.base import Finding
from stream.survey.record import (
    RESOLUTION,
    AnswersRow,
    BasisName,
    Better,
    FindingRow,
    ModelRow,
    NumberRow,
    PhotoRow,
    SummaryRow,
)


def model_rows(uses: Iterable[ModelUse]) -> list[ModelRow]:
    """The models as they ran here."""
    rows = []
    for use in uses:
        spec = use.spec
        published = spec.weights.sha256
        rows.append(
            ModelRow(
                name=spec.name,
                parameters_m=spec.parameters_m,
                licence=spec.licence,
                origin=spec.source,
                output=spec.output.value,
                weights_sha256=use.weights_sha256,
                is_published=None if published is None else published == use.weights_sha256,
                weights_file="" if use.weights is None else use.weights.name,
                device=use.device,
                precision=use.precision,
                backend=use.backend,
                load_s=use.load_s,
                first_s=use.first_s,
                frames_per_s=use.frames / use.seconds if use.seconds > 0 else None,
                memory_bytes=use.memory_bytes,
            )
        )
    return rows


def finding_rows(findings: Iterable[Finding]) -> list[FindingRow]:
    """The findings and what they mean."""
    return [
        FindingRow(
            key=one.key,
            title=one.title,
            question=one.question,
            unit=one.unit,
            better=one.better,
            definition=one.definition,
            details=dict(one.details),
            resolution=one.resolution,
        )
        for one in findings
    ]


def summarised(
    photos: Sequence[PhotoRow], findings: Iterable[Finding], models: Sequence[str]
) -> dict[str, dict[str, SummaryRow]]:
    """Each finding over all photos, by finding and model.

    An error and an opinion have no mean. So where photos with and without a truth were surveyed together, only those
    with a truth count; otherwise those with the basis that most photos have. Means are over the photos that all models
    answer which answer any: a mean over the easier photos would be better than it should be.
    """
    found = {}
    for finding in findings:
        answers = [photo.findings[finding.key] for photo in photos if finding.key in photo.findings]
        basis = _basis(answers)
        numbers = [one.numbers for one in answers if one.basis == basis]
        values, is_fair = _compared(numbers, models)
        if any(values.values()):
            found[finding.key] = rows_of(
                values, better=finding.better if is_fair else "neither", basis=basis, resolution=finding.resolution
            )
    return found


def styles_summarised(
    photos: Sequence[PhotoRow], styles: Iterable[str], models: Sequence[str]
) -> dict[str, dict[str, SummaryRow]]:
    """How far depth moves in each style over all photos, by style and model."""
    found = {}
    for style in styles:
        numbers = [photo.styles[style] for photo in photos if style in photo.styles]
        values, _ = _compared(numbers, models)
        if any(values.values()):
            found[style] = rows_of(values, better="neither")
    return found


def rows_of(
    values: Mapping[str, Sequence[float]],
    *,
    better: Better,
    basis: BasisName | None = None,
    resolution: float = RESOLUTION,
) -> dict[str, SummaryRow]:
    """Means, spreads, and the best of the means, which several models may share.

    Args:
        values: one for each photo, by model.
        basis: of all of them.
        resolution: means that differ by no more are alike.
    """
    means = {model: fmean(known) if known else None for model, known in values.items()}
    are_best = best(means, better=better, resolution=resolution)
    return {
        model: SummaryRow(
            mean=means[model],
            spread=stdev(numbers) if len(numbers) > 1 else None,
            photos=len(numbers),
            is_best=model in are_best,
            basis=basis,
        )
        for model, numbers in values.items()
    }


def _basis(answers: Sequence[AnswersRow]) -> BasisName | None:
    """The basis of the numbers that count."""
    counts = Counter[BasisName](
        one.basis for one in answers if any(number.value is not None for number in one.numbers.values())
    )
    if counts["truth"]:
        return "truth"
    return counts.most_common(1)[0][0] if counts else None


def _compared(photos: Sequence[Mapping[str, NumberRow]], models: Sequence[str]) -> tuple[dict[str, list[float]], bool]:
    """The values of each model on the photos that all models answer which answer any.

    Returns:
        The values, and True; if there is no such photo, each model's own and False, for they cannot be compared.
    """
    rows = [{model: one[model].value for model in models if model in one} for one in photos]
    answering = {model for row in rows for model, value in row.items() if value is not None}
    common = [row for row in rows if all(row.get(model) is not None for model in answering)]
    return {
        model: [value for row in common or rows if (value := row.get(model)) is not None] for model in models
    }, bool(common)

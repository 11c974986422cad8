"""Which models are best by a number, in one photo or by their means.

Invariant: none is best where neither higher nor lower is better, or all are alike; models that differ by less than the
number can tell share the best.
"""

from collections.abc import Mapping

from stream.survey.record import RESOLUTION, Better


def best(values: Mapping[str, float | None], *, better: Better, resolution: float = RESOLUTION) -> frozenset[str]:
    """The models that are best; several if they are alike, none if all are.

    Args:
        values: by model; None for no answer.
        better: which values are better.
        resolution: values that differ by no more are alike.
    """
    known = {model: value for model, value in values.items() if value is not None}
    if better == "neither" or not known:
        return frozenset()
    of_all = max(known.values()) if better == "higher" else min(known.values())
    found = frozenset(model for model, value in known.items() if abs(value - of_all) <= resolution)
    return found if len(found) < len(known) else frozenset()

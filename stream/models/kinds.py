"""What the values of a checkpoint of the user's own mean: `--kind` and `--max-depth`.

The authors' heads differ by kind: disparity and relative depth come out of a ReLU, metres out of a sigmoid that is
scaled by the largest depth, where the network's class has that (`max_depth_m` among the row's options). Other networks
keep their head, and only the meaning of its values changes.

Invariant: a row is changed only by what the user or the file states.
"""

from dataclasses import replace

from stream.errors import UsageError
from stream.frames import DepthKind
from stream.models.spec import ModelSpec

KINDS = {
    "disparity": DepthKind.RELATIVE_DISPARITY,
    "depth": DepthKind.RELATIVE_DEPTH,
    "metric": DepthKind.METRIC_DEPTH,
}
"""The values of `--kind`."""


def has_scale(spec: ModelSpec) -> bool:
    """True if the network scales its metres by a largest depth."""
    return "max_depth_m" in dict(spec.options)


def meant(spec: ModelSpec, *, kind: DepthKind | None, max_depth_m: float | None) -> ModelSpec:
    """The row with the meaning that the user states, before its file is known, which may state the largest depth.

    Raises:
        UsageError: the network cannot give `kind`, or `max_depth_m` does not apply to what the row then gives.
    """
    output = kind or spec.output
    if output.is_disparity and spec.is_distance:
        what = f"cannot be what {spec.name} gives: its network makes distances, larger is farther"
        raise UsageError(what, where="--kind disparity", allowed="depth, metric")
    if max_depth_m is not None and output is not DepthKind.METRIC_DEPTH:
        hint = "`depthstream models` shows which models give metres; for a metric file of your own, add --kind metric"
        raise UsageError(f"only applies to metric models, and {spec.name} is none", where="--max-depth", hint=hint)
    if max_depth_m is not None and not has_scale(spec):
        what = f"only applies to models with a largest depth, and {spec.name} has none"
        raise UsageError(what, where="--max-depth", hint="leave it out: its network gives metres as they are")
    if output is not DepthKind.METRIC_DEPTH:
        return _with(spec, output, None)
    return _with(spec, output, spec.max_depth_m if max_depth_m is None else max_depth_m)


def complete(spec: ModelSpec) -> ModelSpec:
    """`spec` itself.

    Raises:
        UsageError: it gives metres up to a largest depth that nothing states.
    """
    if spec.output is DepthKind.METRIC_DEPTH and spec.max_depth_m is None and has_scale(spec):
        raise UsageError(
            f"needs the largest depth that the file was trained with, because {spec.name} has none",
            where="--kind metric",
            hint="add --max-depth METRES: 20 for indoor files, 80 for outdoor ones",
        )
    return spec


def _with(spec: ModelSpec, output: DepthKind, max_depth_m: float | None) -> ModelSpec:
    if (output, max_depth_m) == (spec.output, spec.max_depth_m):
        return spec
    options = tuple((name, max_depth_m if name == "max_depth_m" else value) for name, value in spec.options)
    return replace(spec, output=output, max_depth_m=max_depth_m, options=options)

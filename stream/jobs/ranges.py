"""Ranges of a run: what the ends of the colormap and of the codes in depth files stand for, and when the whole clip
must be known first.

Invariant: files of numbers never use a range that changes within a run.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from stream.config import Config
from stream.depthdata.description import DepthCodec, Description
from stream.depthdata.mapping import CODES_12, Mapping
from stream.errors import ConfigError, UsageError
from stream.frames import DepthKind, SourceInfo, SourceKind
from stream.jobs.plan import OutputKind, depth_codec, output_kind
from stream.jobs.skip import is_skipping

if TYPE_CHECKING:
    from stream.capture.memory import Images
    from stream.infer.engine import Engine
    from stream.models.spec import ModelSpec
    from stream.render.range import RangePolicy

PERCENTILES = (1.0, 99.0)
"""Percentiles of all displayed values of a clip that `--range clip` maps to the ends of the colormap. The least and the
largest value leave a tenth of the colours to a few pixels; with 2 and 98, as in the scripts of Depth Anything 3 for one
image, whole heads and hands in front of the camera become one colour (photographs and the demo, with `starter`)."""


@dataclass(frozen=True, kw_only=True)
class ClipEnds:
    """The ends of a whole clip.

    Attributes:
        shown: `PERCENTILES` of the displayed values, larger = nearer; equal if the depth is constant.
        values: the least and the largest value, in the unit of the model.
        kind: what the values mean.
        is_known: False stands for ends that are not known yet, and for those of a clip without any answer.
    """

    shown: tuple[float, float]
    values: tuple[float, float]
    kind: DepthKind = DepthKind.RELATIVE_DISPARITY
    is_known: bool = True

    @classmethod
    def unknown(cls) -> Self:
        """Stands for ends that are not known yet, to check everything that depends on them before any work."""
        return cls(shown=(1.0, 1.0), values=(0.0, 1.0), is_known=False)

    def as_fields(self) -> dict[str, object] | None:
        """For a report: everything in the unit of the model, as `--range` takes it; None if the ends are not known."""
        if not self.is_known:
            return None
        from stream.render.range import native

        lo, hi = native(self.shown, self.kind)
        lowest, highest = self.values
        return {"lo": lo, "hi": hi, "percentiles": list(PERCENTILES), "lowest": lowest, "highest": highest}


def build_range(config: Config, info: SourceInfo, output: DepthKind, ends: ClipEnds | None = None) -> "RangePolicy":
    """The range policy for this run; by default each image has its own range, and a video a smoothed one.

    Args:
        ends: of the whole clip, for `--range clip`.

    Raises:
        UsageError: not a range, or that of a clip that nothing is known of.
    """
    from stream.render.range import ClipRange, parse_range

    default = "frame" if info.kind is SourceKind.STILLS else "ema"
    text = config.render.range or default
    if text == "clip" and ends is not None:
        return ClipRange(*ends.shown)
    return parse_range(text, kind=output)


def why_two_passes(config: Config, kind: DepthKind, *, max_depth_m: float | None) -> str:
    """The option because of which the whole clip must be known before anything is written; "" if there is none.

    Args:
        kind, max_depth_m: of the model's values, see `ModelSpec`.
    """
    given = config.render.range or ""
    if given == "clip":
        return "--range clip"
    is_metric = kind is DepthKind.METRIC_DEPTH
    if ":" in given or (is_metric and max_depth_m is not None):
        return ""
    if video := _coded_video(config):
        return video
    if is_metric:
        return ""
    coded = [name for name in config.output.save if name in _CODED]
    return f"--save {coded[0]}" if coded else ""


def _coded_video(config: Config) -> str:
    """The option that asks for a depth video of codes, "" if there is none."""
    path = config.output.path
    if isinstance(path, Path) and output_kind(path) is OutputKind.DEPTH_VIDEO:
        return "" if depth_codec(config, path) is DepthCodec.FLOAT32 else f"-o {path.name}"
    is_coded = "video16" in config.output.save and config.output.depth_codec != DepthCodec.FLOAT32.value
    return "--save video16" if is_coded else ""


_CODED = ("png16",)
"""Formats whose codes need the ends of the values, unless these are metres."""


def check_readable_twice(config: Config, images: "Images | None", why: str) -> None:
    """Refuse two passes over what can be read only once, without opening it.

    Args:
        why: see `why_two_passes`.

    Raises:
        UsageError: the source is a pipe, an iterator or open; or several models would share one range.
    """
    from stream.capture.parse import SourceForm, parse_source

    if images is not None and not images.can_repeat:
        what = f"reads the images twice, and {images.giver} gives them once"
        raise UsageError(what, where=why, hint=images.instead)
    if images is None and config.source is not None and parse_source(config.source).form is SourceForm.PIPE:
        hint = f"save it to a file first, or {_instead(why)}"
        raise UsageError("reads the source twice, and a pipe can be read only once", where=why, hint=hint)
    if config.model.also:
        raise ConfigError("several models cannot share one range", where=why, hint="name one model with -m")


def check_has_end(info: SourceInfo, why: str) -> None:
    """Refuse two passes over a live source.

    Raises:
        UsageError: it is one.
    """
    if info.is_live:
        what = "needs the whole source first, and a live one has no end"
        raise UsageError(what, where=why, hint=f"{_instead(why)}, or record it first")


def _instead(why: str) -> str:
    if why == "--range clip":
        return "give --range LO:HI"
    is_video = why == "--save video16" or why.startswith("-o ")
    return f"give --range LO:HI, or {'add --depth-codec float32' if is_video else 'choose --save npy'}"


def disparity_ends(config: Config, ends: ClipEnds | None) -> tuple[float, float] | None:
    """The relative disparities that points in space have at the far and at the near end of every frame; None: each
    frame has its own.

    Args:
        ends: of the whole clip, where they are needed.
    """
    given = config.render.range or ""
    low, is_fixed, high = given.partition(":")
    if is_fixed:
        return float(low), float(high)
    return ends.shown if ends is not None and given == "clip" else None


def depth_mapping(config: Config, kind: DepthKind, ends: ClipEnds | None) -> Mapping | None:
    """How files of 16-bit codes store the values of a relative model in this run.

    Args:
        ends: of the whole clip, as `why_two_passes` asks for.

    Returns:
        None for metric depth, whose codes count a unit.
    """
    if kind is DepthKind.METRIC_DEPTH:
        return None
    low, _, high = (config.render.range or "").partition(":")
    if high:
        return Mapping(lo=float(low), hi=float(high))
    if ends is None:
        return None
    lo, hi = ends.values
    return Mapping(lo=lo, hi=hi if lo < hi else lo + max(1.0, abs(lo)))  # a constant has the first code


def video_mapping(config: Config, path: Path, spec: "ModelSpec", ends: ClipEnds | None) -> Mapping | None:
    """How the depth video `path` stores values: by --range LO:HI, a metric model's largest depth, or `ends`.

    Args:
        ends: of the whole clip, as `why_two_passes` asks for.

    Returns:
        None for `float32`, which stores the values themselves.

    Raises:
        ConfigError: nothing says which values may come.
    """
    codec, most = depth_codec(config, path), config.model.max_depth or spec.max_depth_m
    if codec is DepthCodec.FLOAT32:
        return None
    if spec.output is DepthKind.METRIC_DEPTH and ":" not in (config.render.range or "") and most is not None:
        mapping = Mapping(lo=0.0, hi=most)
    else:
        # Codes of a given range are the same for every kind.
        found = depth_mapping(config, DepthKind.RELATIVE_DISPARITY, ends)
        if found is None:
            hint = "give their range with --range LO:HI, or add --depth-codec float32, which needs none"
            what = f"the codes of {codec} need to know which values {spec.name} gives"
            raise ConfigError(what, where=str(path), hint=hint)
        mapping = found
    return replace(mapping, first=0, last=CODES_12) if codec is DepthCodec.HEVC12 else mapping


def describe(config: Config, engine: "Engine", size_hw: tuple[int, int]) -> Description:
    """What files of depth say of the model; their sinks add the source and, where it is not given, the mapping.

    Args:
        size_hw: of the frames.
    """
    return Description(
        kind=engine.spec.output,
        model=engine.spec.name,
        weights_sha256=engine.model.weights_sha256 or None,
        capture=config.capture,
        refined=engine.may_refine(size_hw),
        steadied=config.inference.steady,
        carried=is_skipping(config),
    )

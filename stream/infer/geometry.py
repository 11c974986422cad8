"""Computes the network's input size from a frame's size.

Invariant: the result depends only on the arguments, and both sides are positive multiples of `policy.multiple_of`.
"""

import math

from stream.errors import ModelError, UsageError
from stream.models.spec import Fit, InputPolicy

MAX_INPUT_PIXELS = 4096 * 4096
"""A larger network input needs tens of GB in most models; panoramas at their full aspect ratio are refused."""


def network_size(
    policy: InputPolicy, size_hw: tuple[int, int], *, input_size: int | None = None, square: bool = False
) -> tuple[int, int]:
    """Network input (height, width) in pixels for a frame of `size_hw`.

    The rules are those of the official scripts: the `Resize` transform of MiDaS and Depth Anything (`keep_aspect` with
    `upper_bound`, `lower_bound` or `minimal`), and a constant area for the built-in model.

    Args:
        input_size: inference size N instead of the model's own.
        square: use N × N and ignore the aspect ratio.

    Raises:
        UsageError: the input size is not positive, or the model only supports another one.
        ModelError: the input would exceed `MAX_INPUT_PIXELS`.
    """
    if input_size is not None and input_size < 1:
        raise UsageError("is not a size", where=f"--input-size {input_size}", allowed="pixels, 1 or more")
    if policy.fixed_size:
        height, width = policy.size_hw
        if input_size is not None and input_size != height:
            raise UsageError("this model takes one size", where=f"--input-size {input_size}", allowed=str(height))
        return policy.size_hw
    box = policy.size_hw if input_size is None else _box(policy, input_size)
    multiple = policy.multiple_of
    if policy.widest is not None and not square:
        box = _reduced(policy, size_hw, box)
    if square or not policy.keep_aspect:
        bounds = (box[0], box[0] if square else box[1])
        # Not the bound itself: the official code multiplies by a scale, whose rounding decides ties.
        result = (
            _within(policy.fit, bounds[0] / size_hw[0] * size_hw[0], bounds[0], multiple),
            _within(policy.fit, bounds[1] / size_hw[1] * size_hw[1], bounds[1], multiple),
        )
    elif policy.fit is Fit.AREA:
        height, width = size_hw
        scale = math.sqrt(box[0] * box[1] / (height * width))
        result = (_rounded(height * scale, multiple), _rounded(width * scale, multiple))
    else:
        result = _fit(policy.fit, size_hw, box, multiple)
    if result[0] * result[1] > MAX_INPUT_PIXELS:
        raise ModelError(
            f"a {size_hw[1]}×{size_hw[0]} image would need a {result[1]}×{result[0]} network input",
            allowed=f"up to {MAX_INPUT_PIXELS / 1e6:.0f} million pixels",
            hint="crop the image, or use --input-size or --square",
        )
    return result


def _box(policy: InputPolicy, input_size: int) -> tuple[int, int]:
    if policy.fit is Fit.AREA or not policy.keep_aspect:
        return input_size, input_size * policy.size_hw[1] // policy.size_hw[0]
    return input_size, input_size


def longer_side_hw(size_hw: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) scaled so that the longer side is `longest`; half a pixel is rounded to even, but not to 0."""
    scale = longest / max(size_hw)
    height, width = (longest if side == max(size_hw) else max(1, round(side * scale)) for side in size_hw)
    return height, width


_OFFICIAL_WIDEST = 1.777
"""What Video-Depth-Anything multiplies by, beyond its limit of 1.78."""


def _reduced(policy: InputPolicy, size_hw: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The box for a picture that is wider or higher than `policy.widest`."""
    ratio = max(size_hw) / min(size_hw)
    if policy.widest is None or ratio <= policy.widest:
        return box
    side = round(int(box[0] * _OFFICIAL_WIDEST / ratio) / policy.multiple_of) * policy.multiple_of
    side = max(side, policy.multiple_of)
    return side, side


def _fit(fit: Fit, size_hw: tuple[int, int], box: tuple[int, int], multiple: int) -> tuple[int, int]:
    if fit is Fit.LONGER_SIDE:
        height, width = (_rounded_up(side, multiple) for side in longer_side_hw(size_hw, box[0]))
        return height, width
    if fit is Fit.SHORTER_SIDE:
        scale = box[0] / min(size_hw)
        return _rounded(size_hw[0] * scale, multiple), _rounded(size_hw[1] * scale, multiple)
    if fit is Fit.TOKENS:
        tokens, aspect = round((box[0] / multiple) ** 2), size_hw[1] / size_hw[0]
        rows, columns = (max(1, round(math.sqrt(count))) for count in (tokens / aspect, tokens * aspect))
        return rows * multiple, columns * multiple
    scale_h, scale_w = box[0] / size_hw[0], box[1] / size_hw[1]
    if fit is Fit.LOWER_BOUND:
        scale = max(scale_h, scale_w)
    elif fit is Fit.UPPER_BOUND:
        scale = min(scale_h, scale_w)
    else:
        scale = scale_h if abs(1 - scale_h) <= abs(1 - scale_w) else scale_w
    return _within(fit, scale * size_hw[0], box[0], multiple), _within(fit, scale * size_hw[1], box[1], multiple)


def _within(fit: Fit, side: float, bound: int, multiple: int) -> int:
    """Round a side to a multiple without crossing its bound, if the fit has one."""
    if fit is Fit.LOWER_BOUND:
        return _rounded(side, multiple, low=bound)
    return _rounded(side, multiple, high=bound if fit is Fit.UPPER_BOUND else None)


def _rounded_up(side: int, multiple: int) -> int:
    """Round to the nearest multiple, ties up; at least one multiple."""
    return max((side + multiple // 2) // multiple * multiple, multiple)


def _rounded(side: float, multiple: int, *, low: int = 0, high: int | None = None) -> int:
    """Round to the nearest multiple (ties to even, as `numpy.round`), but down if that exceeds `high` and up if it is
    below `low`; at least one multiple."""
    value = round(side / multiple) * multiple
    if high is not None and value > high:
        value = math.floor(side / multiple) * multiple
    if value < low:
        value = math.ceil(side / multiple) * multiple
    return max(value, multiple)

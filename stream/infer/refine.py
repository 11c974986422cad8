"""Brings a network's map to the picture's size along the picture's edges, on the device and in float32.

A joint bilateral filter and upsampling (Kopf et al. 2007): a pixel's depth is the mean of the map's values around it,
where those weigh more whose colours are like the pixel's. Two things are added. Values on the soft slope of an edge in
the map weigh little, so that a pixel takes the depth of the side whose colour it has. And only the neighbourhood of
such edges changes: elsewhere the official upsampling stays as it is, so that no texture is copied into a flat surface.

Chosen with scripts/measure/refine.py among these and guided filters (He et al. 2015), whose edges are softer.

Invariant: a changed value lies between the official value and values of the map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stream.frames import DepthKind
from stream.infer.preprocess import antialiased
from stream.models.resize import resize
from stream.models.spec import Resample

_FILTER, _UPSAMPLING = (4, 2, 3.0), (1, 1, 1.0)
"""How far the values are that count, in pixels of the map, how far apart they are, and the standard deviation of their
weight by distance: for the map itself, then for the picture."""
_COLOUR = 0.1
"""Standard deviation of the weight by colour: Euclidean in RGB, each channel in [0, 1]."""
_SLOPE = 0.1
"""Standard deviation of the weight by slope: the range of a value's neighbours as a share of that of the filter's."""
_VALUE = 0.2
"""Standard deviation of the weight by value: the difference from the pixel's own as a share of the range around it. So
an edge that the picture does not show is not softened."""
_STEEP, _UNLIKE = -7.0, -20.0
"""Logarithms of the least weight by slope and by colour: a pixel unlike all others takes their mean."""
_EDGE = 0.02, 0.06
"""Steps of an edge, as shares of the map's range, from which on the pixels around it change, and change in full."""
_RANGE, _SAMPLES = (0.02, 0.98), 2**13
"""The map's range is between these quantiles of its disparity, taken from about so many values."""
_LEAST_DEPTH = 1e-6
"""Smaller depths count as this, in the unit of the map, so that disparity is finite."""
_TINY = 1e-30
_STRIP_PIXELS = {"cpu": 2**16}
_STRIP_PIXELS_GPU = 2**20
"""Pixels computed at a time, which take about 100 bytes each."""


def refine(depth_map: Tensor, network: Tensor, rgb: Tensor, kind: DepthKind) -> None:
    """Sharpen a depth map at the picture's edges, in place.

    Args:
        depth_map: float32 H×W, contiguous: the network's output after the official upsampling. NaN stays NaN.
        network: h×w, the network's output; NaN where there is no answer.
        rgb: uint8 H×W×3, the picture.
        kind: meaning of the values; edges are looked for in disparity, because in depth the farthest dwarf all others.
    """
    (h, w), (height, width) = network.shape, depth_map.shape
    answers = torch.isfinite(network)
    values = torch.where(answers, network.float(), 0)
    near, slope, around = _edges(values, answers, kind)
    to_value = 0.5**0.5 / _VALUE / around
    to_colour = 1 / (255 * _COLOUR * 2**0.5)  # a squared distance is then the logarithm of a weight
    colours = antialiased(rgb, (h, w))[0].mul_(to_colour)

    source = [plane.reshape(-1) for plane in (*colours, values, slope)]
    sharp = values.reshape(-1).clone()
    chosen = _chosen(near.view(-1))
    here = [plane[chosen] for plane in source[:3]]
    y, x = (chosen // w).float(), (chosen % w).float()
    change = _change(sharp[chosen], here, source, to_value.view(-1)[chosen], y, x, (h, w), *_FILTER)
    sharp[chosen] += near.view(-1)[chosen] * change

    source[3:] = sharp, torch.where(answers.view(-1), 0.0, -torch.inf)
    near = resize(near[None, None], (h, width), Resample.BILINEAR)[0, 0]
    rows = max(1, _STRIP_PIXELS.get(rgb.device.type, _STRIP_PIXELS_GPU) // width)
    for top in range(0, height, rows):
        strip = depth_map[top : top + rows].view(-1)
        line = (torch.arange(top, min(top + rows, height), device=rgb.device) + 0.5) * (h / height) - 0.5
        inside = line.clamp(0, h - 1)
        above = inside.long()
        share = torch.lerp(near[above], near[(above + 1).clamp_max(h - 1)], (inside - above)[:, None]).view(-1)
        chosen = _chosen(share)
        if not len(chosen):
            continue
        here = list(rgb[top : top + rows].view(-1, 3)[chosen].float().mul_(to_colour).unbind(1))
        y, x = line[chosen // width], ((chosen % width) + 0.5) * (w / width) - 0.5
        nearest = to_value[y.round().clamp_(0, h - 1).long(), x.round().clamp_(0, w - 1).long()]
        change = _change(strip[chosen], here, source, nearest, y, x, (h, w), *_UPSAMPLING)
        strip[chosen] += share[chosen] * change


def _chosen(share: Tensor) -> Tensor:
    """Indices of the pixels to compute: on a CPU those that change, elsewhere all, as the host would have to wait for
    their number."""
    if share.device.type == "cpu":
        return share.nonzero()[:, 0]
    return torch.arange(len(share), device=share.device)


def _change(
    before: Tensor,
    here: Sequence[Tensor],
    source: Sequence[Tensor],
    to_value: Tensor,
    y: Tensor,
    x: Tensor,
    size_hw: tuple[int, int],
    reach: int,
    spacing: int,
    distance: float,
) -> Tensor:
    """The weighted mean around each of P pixels, minus the value that it has.

    Args:
        before: P, those values.
        here: the pixels' three colours, P each.
        source: the map's three colours, values and logarithms of a weight of their own, h·w each.
        to_value: P; the square of a difference in value times this is the logarithm of a weight.
        y, x: P, positions of the pixels in the map.
        size_hw: (h, w).
        reach, spacing, distance: see `_UPSAMPLING`.
    """
    h, w = size_hw
    red, green, blue, values, own = source
    offsets, to_weight = range(-reach, reach + 1, spacing), 0.5**0.5 / distance
    columns = [x.round() + offset for offset in offsets]
    by_column = [((column - x) * to_weight).square_() for column in columns]
    columns = [column.clamp_(0, w - 1).long() for column in columns]
    total, weights = torch.zeros_like(before), torch.zeros_like(before)
    for offset in offsets:
        row = y.round() + offset
        by_row = ((row - y) * to_weight).square_()
        row = row.clamp_(0, h - 1).long() * w
        for column, across in zip(columns, by_column, strict=True):
            at = row + column
            unlike = red.index_select(0, at).sub_(here[0]).square_()
            unlike += green.index_select(0, at).sub_(here[1]).square_()
            unlike += blue.index_select(0, at).sub_(here[2]).square_()
            step = values.index_select(0, at).sub_(before)
            weight = (own.index_select(0, at) - unlike.clamp_max_(-_UNLIKE)).sub_((step * to_value).square_())
            weight.sub_(by_row).sub_(across).exp_()
            weights += weight
            total += weight.mul_(step)
    return total / weights.clamp_min_(1e-30)  # 0 where nothing around has an answer


def _edges(values: Tensor, answers: Tensor, kind: DepthKind) -> tuple[Tensor, Tensor, Tensor]:
    """Where a map has edges.

    Args:
        values: float32 h×w.
        answers: bool h×w, where they are defined.
        kind: their meaning.

    Returns:
        Each h×w: by how much the pixels may change, 0…1; the logarithm of their weight by slope; the range of
        the values around them, positive.
    """
    reach = _FILTER[0]
    inner = slice(2 * reach, -2 * reach)
    wide, known = _extended(values, answers, 2 * reach)
    around = _range_within(wide, known, reach)
    slope = _range_within(wide, known, 1) / around.clamp_min(_TINY) / _SLOPE
    weight = torch.where(known, slope.square_().mul_(-0.5).clamp_min_(_STEEP), -torch.inf)
    disparity, range_around = values, around
    if not kind.is_disparity:
        disparity = 1 / values.clamp_min(_LEAST_DEPTH)
        wide, _ = _extended(disparity, answers, 2 * reach)
        range_around = _range_within(wide, known, reach)
    # A plane's range grows with the window, that of a step does not. (A plane's disparity is linear in the picture.)
    step = 2 * range_around - _range_within(wide, known, 2 * reach)
    every = max(1, disparity.numel() // _SAMPLES)
    sample = torch.where(answers, disparity, torch.nan).view(-1)[::every]
    low, high = (sample.nanquantile(share) for share in _RANGE)
    share = step[inner, inner] / (high - low).clamp_min(_TINY)
    share = ((share - _EDGE[0]) / (_EDGE[1] - _EDGE[0])).nan_to_num_(0).clamp_(0, 1)
    share = F.avg_pool2d(F.pad(share[None], (2,) * 4, mode="replicate"), 5, 1)[0]
    return share, weight[inner, inner], around[inner, inner].clamp_min(_TINY)


def _extended(values: Tensor, answers: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """h×w values and where they are defined, continued by so many pixels on each side, a plane as a plane."""
    for axis in (0, 1):
        last = values.shape[axis] - 1
        at = torch.arange(-by, last + 1 + by, device=values.device)
        border, mirrored = at.clamp(0, last), (last - (last - at.abs()).abs()).clamp_min(0)
        values = 2 * values.index_select(axis, border) - values.index_select(axis, mirrored)
        answers = answers.index_select(axis, border) & answers.index_select(axis, mirrored)
    return values, answers


def _range_within(values: Tensor, answers: Tensor, reach: int) -> Tensor:
    """The largest minus the smallest value at most `reach` pixels away, −inf without any; h×w."""
    most = _most_within(torch.where(answers, values, -torch.inf), reach)
    return most + _most_within(torch.where(answers, -values, -torch.inf), reach)


def _most_within(values: Tensor, reach: int) -> Tensor:
    """The largest of the h×w values at most `reach` rows and columns away."""
    window = 2 * reach + 1
    return F.max_pool2d(F.max_pool2d(values[None], (window, 1), 1, (reach, 0)), (1, window), 1, (0, reach))[0]

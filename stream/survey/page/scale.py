"""The colour bars of the page.

Invariant: they are drawn from the tables that coloured the pictures.
"""

from stream.render import colormap as colormaps
from stream.survey.page.html import Html, joined, tag
from stream.survey.page.words import metres, number, with_unit
from stream.survey.pictures import DIFFERENCES
from stream.survey.record import PhotoRow

_STOPS = 32
_DIFFERENCE = "difference:"


def gradients(colormap: str) -> Html:
    """The two colormaps as SVG gradients, which the bars of all photos share."""
    shared = (_gradient("depth-colours", colormap), _gradient("difference-colours", DIFFERENCES))
    return tag("svg", tag("defs", *shared), width=0, height=0, class_="shared", aria_hidden="true")


def depth_bar(photo: PhotoRow, reference: str) -> Html | None:
    """What the colours of a photo's maps mean.

    Args:
        reference: the first model, whose unit counts where there is no truth.
    """
    scale = photo.scale
    if scale is None:
        return None
    if photo.has_truth:
        ends = [f"{metres(value)} ({with_unit(number(value), '1/m')})" for value in (scale.low, scale.high)]
        words = "Colours: disparity, the same in truth and all models"
    else:
        ends = [number(scale.low), number(scale.high)]
        words = f"Colours: disparity as {reference} has it, the same in all models; no unit"
    has_gaps = any(not key.startswith(_DIFFERENCE) for key in scale.gaps)
    return _bar("depth-colours", words, f"far: {ends[0]}", f"near: {ends[1]}", has_gaps=has_gaps)


def difference_bar(photo: PhotoRow) -> Html | None:
    """What the colours of a photo's differences mean."""
    if photo.scale is None:
        return None
    end = number(photo.scale.difference)
    share = "half of the colour range of the depth"
    high = f"{with_unit(end, '1/m') if photo.has_truth else end} or more ({share})"
    has_gaps = any(key.startswith(_DIFFERENCE) for key in photo.scale.gaps)
    return _bar("difference-colours", "Colours: difference of the disparities", "0: the same", high, has_gaps=has_gaps)


def _bar(gradient: str, words: str, low: str, high: str, *, has_gaps: bool) -> Html:
    fill = tag("rect", width="100%", height="100%", fill=f"url(#{gradient})")
    ends = tag("span", tag("span", low), tag("span", high), class_="ends")
    gaps = joined([" ", tag("span", class_="gaps", aria_hidden="true"), " Hatched: no answer."]) if has_gaps else None
    note = tag("span", f"{words}.", gaps, class_="words")
    return tag("div", note, tag("svg", fill, class_="bar", aria_hidden="true"), ends, class_="scale")


def _gradient(name: str, colormap: str) -> Html:
    colours = colormaps.table(colormap)
    stops = []
    for index in range(_STOPS + 1):
        red, green, blue = colours[round(index / _STOPS * 255)]
        stops.append(tag("stop", offset=f"{index / _STOPS:.4g}", stop_color=f"#{red:02x}{green:02x}{blue:02x}"))
    return tag("linearGradient", joined(stops), id=name)

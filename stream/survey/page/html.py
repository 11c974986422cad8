"""Markup that is escaped by construction: text becomes markup only through `tag`.

Invariant: what is not `Html` is escaped, so no name and no reason can add an element, an attribute or a script.
"""

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from stream.errors import printable

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "wbr"})

Attribute = str | int | float | bool | None


class Html(str):
    """Markup."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: Attribute) -> Html:
    """An element.

    Args:
        children: markup if they are `Html`, else text; None is left out.
        attributes: `class_` is class, and `data_key` is data-key; True is an attribute without a value, False and None
            none at all.
    """
    opening = "".join([name, *(_attribute(key, value) for key, value in attributes.items())])
    if name in _VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{joined(children)}</{name}>")


def joined(children: Iterable[str | None], between: str = "") -> Html:
    """Several pieces of markup and text, one after the other."""
    return Html(between.join(text(child) for child in children if child is not None))


def text(content: str) -> Html:
    """Text as markup; markup as it is."""
    return content if isinstance(content, Html) else Html(escape(printable(content, lines=True)))


def breakable(name: str) -> Html:
    """A name that may break after `_`, `-`, `/` and `.`, so that a long one fits a narrow column."""
    return Html("".join(f"{escape(c)}<wbr>" if c in "_-/." else escape(c) for c in printable(name)))


def address_of(path: str) -> str:
    """The address of a file beside the page, from its path with `/` between folders."""
    return quote(path, safe="/", errors="surrogateescape")


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(printable(str(value)))}"'

"""The sinks that show a live preview in web browsers.

Invariant: the pipeline's thread never waits for a viewer.
"""

import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from stream.config import GENERATED_TOKEN
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.live.controlled import ControlledSink, Controls
from stream.live.server import EVENTS_PER_S, Address, Feed, Server
from stream.media import cv2
from stream.notes import note

JPEG_QUALITY = 82
_CLOSED = {
    "page_closed_late": "connections sent no whole request in time",
    "page_closed_not_reading": "connections did not read their answer",
    "page_closed_not_http": "connections sent something else than HTTP",
    "page_closed_for_another": "connections gave way to new ones",
    "page_viewers_displaced": "viewers gave their place to others",
    "page_refused_without_token": "requests had no valid token",
}
"""Counters of the report, and how they end a sentence."""


class PageControls(Controls, Protocol):
    """Also carries out what viewers of a page ask for."""

    def command(self, name: str, value: object) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def snapshot_files(self) -> tuple[bytes, bytes] | None: ...
    def recordings(self) -> dict[int, Path]: ...


class Page:
    """Where a page is served, and under which secret.

    Args:
        address: where to serve; every address but a loopback address needs a token.
        token: secret that viewers must send; by default a random one if a token is needed, otherwise none;
            `GENERATED_TOKEN` for a random one in any case.
        names: host names of a proxy that passes requests on to this server.
        tls: certificate and key; None for plain HTTP.
        say: called with the page's address. It contains the token, so it must not go into a report.
    """

    def __init__(
        self,
        address: Address,
        *,
        token: str | None = None,
        names: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        say: Callable[[str], None],
    ) -> None:
        self._address, self._names, self._tls, self._say = address, names, tls, say
        if token == GENERATED_TOKEN or not (token or address.is_loopback):
            token = secrets.token_urlsafe(16)
        self._token = token or ""
        self._feed: Feed | None = None
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """The address without the token; "" before it is served."""
        return "" if self._server is None else self._server.url

    def open(self, feed: Feed, tiles: Sequence[Feed] = ()) -> None:
        """Bind the address and start serving.

        Args:
            feed: of the run.
            tiles: of each of several sources.

        Raises:
            MissingExtraError: Starlette or uvicorn is not installed.
            SinkError: the address cannot be bound.
        """
        self._feed = feed
        self._server = Server(
            self._address, feed, tiles=tiles, token=self._token, names=self._names, tls=self._tls
        )  # fmt: skip
        self._say(f"watch at {self._server.url}" + (f"?token={quote(self._token, safe='')}" if self._token else ""))

    def close(self, reason: str) -> None:
        """Show viewers why the run has ended, and stop serving. Idempotent."""
        if self._server is None or self._feed is None or self._feed.ended:
            return
        self._feed.end(reason)
        self._server.stop()
        counts = [f"{count} {_CLOSED[name]}" for name, count in self._feed.closed.items() if count]
        if counts:
            note(f"the live page: {', '.join(counts)}")


class TileSink(ControlledSink[PageControls]):
    """Shows one of several sources on a page that is served elsewhere.

    Args:
        controls: makes the images and receives the commands.
        name: of the source.

    Attributes:
        feed: what the page shows of it.
    """

    def __init__(self, *, controls: PageControls, name: str = "") -> None:
        super().__init__(controls)
        self.feed = Feed(snapshot=controls.snapshot_files, recordings=controls.recordings, name=name)
        self._next_state_s = 0.0

    @property
    def viewers(self) -> int:
        """Connections that receive images now."""
        return self.feed.newest.viewers

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Show the controls."""
        super().open(info, size)
        self.feed.state = self._controls.state()

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Publish the image; False if nobody is watching or the image is frozen."""
        is_new = super().write(frame, depth, image)
        self.feed.state = self._controls.state()
        return is_new and self.viewers > 0

    def poll(self) -> None:
        """Carry out the viewers' commands; never blocks."""
        done = False
        while self.feed.commands:
            name, value = self.feed.commands.popleft()
            self._controls.command(name, value)
            done = True
        image = self._controls.refresh()
        if image is not None:
            self._show(image)
        now_s = time.monotonic()
        if done or image is not None or now_s >= self._next_state_s:  # the state changes while a source is stalled, too
            self.feed.state = self._controls.state()
            self._next_state_s = now_s + 1 / EVENTS_PER_S

    def _show(self, image: RgbImage) -> None:
        if self.viewers or not self.feed.newest.jpeg:  # the first image is encoded for whoever connects next
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            ok, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
            if ok:
                self.feed.newest.put(jpeg.tobytes())

    def _end(self, reason: str) -> None:
        if not self.feed.ended:
            self.feed.end(reason.removeprefix(f"{self.feed.name}: "))
            self._controls.close()


class BrowserSink(TileSink):
    """Serves a page with the live image and its controls.

    Args:
        page: where to serve, not open yet; the sink opens and closes it.
        controls: makes the images and receives the commands.
    """

    def __init__(self, page: Page, *, controls: PageControls) -> None:
        super().__init__(controls=controls)
        self._page = page
        self.notes = self.feed.notes

    @property
    def outputs(self) -> list[str]:
        """The page's address."""
        return [self._page.url] if self._page.url else []

    @property
    def counters(self) -> dict[str, int]:
        """Connections that the server closed, and requests that it refused."""
        return dict(self.feed.closed)

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Bind the address and start serving. Raises like `Page.open`."""
        super().open(info, size)
        self._page.open(self.feed)

    def _end(self, reason: str) -> None:
        if self._page.url and not self.feed.ended:
            self._page.close(reason)
            self._controls.close()

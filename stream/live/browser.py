"""The sink that shows a live preview in web browsers.

Invariant: the pipeline's thread never waits for a viewer.
"""

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.live.server import EVENTS_PER_S, Address, Feed, Server
from stream.media import cv2
from stream.sinks.base import Sink

JPEG_QUALITY = 82


class PageControls(Protocol):
    """Makes the images of a page and carries out what viewers ask for; see `stream.live.preview.Preview`."""

    @property
    def scene_cuts(self) -> int: ...
    def open(self, info: SourceInfo) -> None: ...
    def show(self, frame: Frame, depth: Depth) -> RgbImage | None: ...
    def refresh(self) -> RgbImage | None: ...
    def command(self, name: str, value: object) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def snapshot_files(self) -> tuple[bytes, bytes] | None: ...
    def recordings(self) -> dict[int, Path]: ...
    def close(self) -> None: ...


class BrowserSink(Sink):
    """Serves a page with the live image and its controls.

    Args:
        address: where to serve; every address but a loopback address needs a token.
        controls: makes the images and receives the commands.
        token: secret that viewers must send; by default a random one if a token is needed, otherwise none.
        say: called with the page's address. It contains the token, so it must not go into a report.
    """

    needs_image = False

    def __init__(
        self, address: Address, *, controls: PageControls, token: str | None = None, say: Callable[[str], None]
    ) -> None:
        self._address, self._controls, self._say = address, controls, say
        self._token = token or ("" if address.is_loopback else secrets.token_urlsafe(16))
        self._feed = Feed(snapshot=controls.snapshot_files, recordings=controls.recordings)
        self.notes = self._feed.notes
        self._server: Server | None = None
        self._next_state_s = 0.0

    @property
    def is_lossless(self) -> bool:
        """False: a viewer may skip."""
        return False

    @property
    def outputs(self) -> list[str]:
        """The page's address."""
        return [] if self._server is None else [self._server.url]

    @property
    def scene_cuts(self) -> int:
        """Scene cuts that the controls' renderer has seen."""
        return self._controls.scene_cuts

    @property
    def viewers(self) -> int:
        """Connections that receive images now."""
        return self._feed.newest.viewers

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:  # noqa: ARG002 - the controls have another
        """Bind the address and start serving.

        Raises:
            MissingExtraError: Starlette or uvicorn is not installed.
            SinkError: the address cannot be bound.
        """
        self._controls.open(info)
        self._feed.state = self._controls.state()
        self._server = Server(self._address, self._feed, token=self._token)
        self._say(f"watch at {self._server.url}" + (f"?token={self._token}" if self._token else ""))

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - the controls render
        """Publish the image; False if nobody is watching or the image is frozen."""
        shown = self._controls.show(frame, depth)
        if shown is not None:
            self._publish(shown)
        self._feed.state = self._controls.state()
        return shown is not None and self.viewers > 0

    def poll(self) -> None:
        """Carry out the viewers' commands; never blocks."""
        done = False
        while self._feed.commands:
            name, value = self._feed.commands.popleft()
            self._controls.command(name, value)
            done = True
        image = self._controls.refresh()
        if image is not None:
            self._publish(image)
        now_s = time.monotonic()
        if done or image is not None or now_s >= self._next_state_s:  # the state changes while a source is stalled, too
            self._feed.state = self._controls.state()
            self._next_state_s = now_s + 1 / EVENTS_PER_S

    def finish(self) -> None:
        """Show viewers that the source has ended, and stop serving."""
        self._stop("the source has ended")

    def keep_partial(self, reason: str) -> None:
        """Show viewers the reason, and stop serving."""
        self._stop(reason)

    def abort(self, error: BaseException) -> None:
        """Show viewers the error, and stop serving."""
        self._stop(str(error))

    def _publish(self, image: RgbImage) -> None:
        if self.viewers or not self._feed.newest.jpeg:  # the first image is encoded for whoever connects next
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            ok, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
            if ok:
                self._feed.newest.put(jpeg.tobytes())

    def _stop(self, reason: str) -> None:
        if self._server is None or self._feed.ended:
            return
        self._feed.end(reason)
        self._server.stop()
        self._controls.close()

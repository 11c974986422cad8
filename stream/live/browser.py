"""The live picture in web browsers: the sink that feeds the pages.

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

JPEG_QUALITY = 82


class Controls(Protocol):
    """Makes the pictures and carries out what viewers ask for; see `stream.live.preview.Preview`."""

    def open(self, info: SourceInfo) -> None: ...
    def show(self, frame: Frame, depth: Depth) -> RgbImage | None: ...
    def refresh(self) -> RgbImage | None: ...
    def command(self, name: str, value: object) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def snapshot_files(self) -> tuple[bytes, bytes] | None: ...
    def recordings(self) -> dict[int, Path]: ...
    def close(self) -> None: ...


class BrowserSink:
    """Serves the live picture and its controls.

    Args:
        address: where; any but a loopback address needs a token.
        controls: makes the pictures, gets the commands.
        token: what viewers must know; made where it is needed and None. "" on a loopback address: none is needed.
        say: told the address, with the token in it: not to be kept in a report.
    """

    def __init__(
        self, address: Address, *, controls: Controls, token: str | None = None, say: Callable[[str], None]
    ) -> None:
        self._address, self._controls, self._say = address, controls, say
        self._token = token or ("" if address.is_loopback else secrets.token_urlsafe(16))
        self._feed = Feed(snapshot=controls.snapshot_files, recordings=controls.recordings)
        self._server: Server | None = None
        self._next_state_s = 0.0

    @property
    def is_lossless(self) -> bool:
        """False: a viewer may skip."""
        return False

    @property
    def needs_image(self) -> bool:
        """False: the controls render."""
        return False

    @property
    def outputs(self) -> list[str]:
        """The page's address."""
        return [] if self._server is None else [self._server.url]

    @property
    def notes(self) -> list[str]:
        """Said once: defects of the page, of which viewers are told nothing."""
        return self._feed.notes

    @property
    def viewers(self) -> int:
        """Connections that get pictures now."""
        return self._feed.newest.viewers

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:  # noqa: ARG002 - the controls know theirs
        """Bind the address and start serving.

        Raises:
            MissingExtraError: Starlette or uvicorn are not installed.
            SinkError: the address cannot be bound.
        """
        self._controls.open(info)
        self._feed.state = self._controls.state()
        self._server = Server(self._address, self._feed, token=self._token)
        self._say(f"watch at {self._server.url}" + (f"?token={self._token}" if self._token else ""))

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - the controls render
        """Leave the picture for the viewers; False if there is none to show it to."""
        picture = self._controls.show(frame, depth)
        if picture is not None:
            self._publish(picture)
        self._feed.state = self._controls.state()
        return picture is not None and self.viewers > 0

    def poll(self) -> None:
        """Carry out waiting commands; never blocks."""
        done = False
        while self._feed.commands:
            name, value = self._feed.commands.popleft()
            self._controls.command(name, value)
            done = True
        picture = self._controls.refresh()
        if picture is not None:
            self._publish(picture)
        now_s = time.monotonic()
        if done or picture is not None or now_s >= self._next_state_s:  # a stalled source has news too
            self._feed.state = self._controls.state()
            self._next_state_s = now_s + 1 / EVENTS_PER_S

    def finish(self) -> None:
        """Tell viewers that it is over, and stop serving."""
        self._stop("the source has ended")

    def keep_partial(self, reason: str) -> None:
        """Tell viewers why it is over, and stop serving."""
        self._stop(reason)

    def abort(self, error: BaseException) -> None:
        """Tell viewers why it is over, and stop serving."""
        self._stop(str(error))

    def _publish(self, picture: RgbImage) -> None:
        if self.viewers or not self._feed.newest.jpeg:  # the first one greets whoever comes
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            ok, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
            if ok:
                self._feed.newest.put(jpeg.tobytes())

    def _stop(self, reason: str) -> None:
        if self._server is None or self._feed.ended:
            return
        self._feed.end(reason)
        self._server.stop()
        self._controls.close()

"""Deinterlaces decoded frames with FFmpeg's bwdif, one frame for one frame.

Invariant: as many frames come out as go in, each with its own times; progressive video is not touched unless that is
asked for.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from stream.media import av

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame

AUTO, ON, OFF = "auto", "on", "off"


class Deinterlacer:
    """Holds back one frame while it works, because each one is computed from its neighbours.

    Args:
        mode: `AUTO` for the frames that are marked as interlaced, `ON` for all, `OFF` for none.
        note: told once that frames are deinterlaced.
    """

    def __init__(self, mode: str, note: Callable[[str], None]) -> None:
        self._mode, self._note = mode, note
        self._graph: Graph | None = None
        self._layout: tuple[int, int, str] | None = None
        self._waiting: deque[VideoFrame] = deque()

    @property
    def is_working(self) -> bool:
        """It has met a frame that is deinterlaced."""
        return self._graph is not None

    def put(self, frame: "VideoFrame") -> "Iterator[VideoFrame]":
        """Yield what is ready after `frame`."""
        layout = (frame.width, frame.height, frame.format.name)
        if self._graph is not None and layout != self._layout:
            yield from self.flush()
        if self._graph is None:
            if self._mode == OFF or not (frame.interlaced_frame or self._mode == ON):
                yield frame
                return
            self._note("interlaced video: deinterlaced (bwdif)")
            self._graph, self._layout = self._built(frame), layout
        self._waiting.append(frame)
        self._graph.push(frame)
        yield from self._ready()

    def flush(self) -> "Iterator[VideoFrame]":
        """Yield what is left at the end of the stream."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._ready()
            self._graph = None
            self._waiting.clear()

    def _built(self, frame: "VideoFrame") -> "Graph":
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        bwdif = graph.add("bwdif", f"mode=send_frame:deint={'all' if self._mode == ON else 'interlaced'}")
        graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
        return graph

    def _ready(self) -> "Iterator[VideoFrame]":
        while self._graph is not None:
            try:
                made = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            frame = self._waiting.popleft()  # bwdif counts in half frames
            made.pts, made.time_base, made.duration = frame.pts, frame.time_base, frame.duration
            yield made

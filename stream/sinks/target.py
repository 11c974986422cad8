"""Where a video is streamed to: the URLs and `-` that may stand for an output, and how each is written.

Invariant: decided from the text alone; nothing is opened, and `StreamTarget.shown` holds no password and no stream key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from stream.errors import UsageError, redacted
from stream.sinks.encoders import Container

STDOUT = "-"
_TS = Container(muxer="mpegts", audio_copied=frozenset({"aac", "mp3", "ac3", "eac3", "mp2"}), has_exact_ticks=False)
_FLV = Container(muxer="flv", audio_copied=frozenset({"aac", "mp3"}), has_exact_ticks=False)
_RTSP = Container(muxer="rtsp", audio_copied=frozenset({"aac", "opus"}), has_exact_ticks=False)
_RTP = Container(muxer="rtp_mpegts", audio_copied=frozenset({"aac", "mp3"}), has_exact_ticks=False)
_PIPE = Container(
    muxer="matroska",
    audio_copied=frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "vorbis"}),
    has_exact_ticks=False,
)
_CONTAINERS = {
    "rtmp": _FLV, "rtmps": _FLV, "rtsp": _RTSP, "rtsps": _RTSP, "udp": _TS, "tcp": _TS, "srt": _TS, "rtp": _RTP,
}  # fmt: skip
_DATAGRAM_BYTES = {"udp": 1316, "srt": 1316, "rtp": 12 + 1316}
"""Seven packets of a transport stream, as all its readers expect, and RTP's header."""


@dataclass(frozen=True, kw_only=True)
class StreamTarget:
    """A place that takes a stream.

    Attributes:
        url: as FFmpeg opens it; `-` for stdout.
        shown: for messages and the report.
        container: how the stream is written.
        options: of the muxer.
        is_paced: a file is sent at its own frame rate, because the receiver cannot slow the sender down.
    """

    url: str
    shown: str
    container: Container
    options: Mapping[str, str] = field(default_factory=dict)
    is_paced: bool = False

    @property
    def is_stdout(self) -> bool:
        """True for `-`."""
        return self.url == STDOUT

    @property
    def waits_for_reader(self) -> bool:
        """True if it listens: `tcp://:9000?listen`."""
        options = parse_qs(urlsplit(self.url).query, keep_blank_values=True)
        return options.get("listen", ["0"])[0] != "0" or "listener" in options.get("mode", ())


def parse_target(text: str) -> StreamTarget:
    """What `text` means: a URL or `-`.

    Raises:
        UsageError: it is a URL that nothing is streamed to.
    """
    if text == STDOUT:
        return StreamTarget(url=STDOUT, shown="stdout", container=_PIPE)
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    try:
        urlsplit(text)
    except ValueError:  # its message and the text may hold a password that cannot be told from the rest
        hint = "write the special characters of a password as %XX: %5B for ["
        raise UsageError("not a valid URL", where=f"{scheme}://…", hint=hint) from None
    shown = _shown(scheme, rest)
    container = _CONTAINERS.get(scheme)
    if container is None:
        allowed = f"{', '.join(f'{known}://' for known in _CONTAINERS)}, - (stdout) or a path"
        raise UsageError(f"cannot stream to {scheme}://", where=shown, allowed=allowed)
    if not rest.partition("?")[0].strip("/"):
        raise UsageError("the address is missing", where=shown, allowed=f"{scheme}://HOST:PORT")
    url = f"{scheme}://{rest}"
    if scheme in _DATAGRAM_BYTES and "pkt_size=" not in url:
        url += f"{'&' if '?' in url else '?'}pkt_size={_DATAGRAM_BYTES[scheme]}"
    options = {"rtsp_transport": "tcp"} if container is _RTSP else {"flvflags": "no_duration_filesize"}
    return StreamTarget(
        url=url,
        shown=shown,
        container=container,
        options=options if container in (_RTSP, _FLV) else {},
        is_paced=scheme != "tcp",
    )


def _shown(scheme: str, rest: str) -> str:
    """The URL without what may be secret: see `redacted`, and the last part of an RTMP or RTSP path, the stream key."""
    shown = redacted(f"{scheme}://{rest}")
    if not scheme.startswith(("rtmp", "rtsp")):
        return shown
    address, mark, end = shown.partition("?")
    address = address.partition("#")[0]  # part of the key
    host, _, path = address.removeprefix(f"{scheme}://").partition("/")
    parts = [part for part in path.split("/") if part]
    return f"{scheme}://{'/'.join([host, *parts[:-1], *(['***'] if parts else [])])}{mark}{end}"

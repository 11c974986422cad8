"""Servers that answer with anything, to whatever we ask: images, videos, playlists, streams and downloads."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.capture.open import open_source
from stream.config import CaptureConfig
from stream.models.weights.download import Download
from tests.fuzz.limits import fuzzed, limited, may_be_refused
from tests.fuzz.mutation import Change, changed, changes
from tests.support import picture_files as files
from tests.support.media_files import write_video

OPTIONS = CaptureConfig(open_timeout_s=2, read_timeout_s=1, reconnect_for_s=0, max_frames=20, max_pixels=1_000_000)


class RawServer:
    """Sends the bytes of a path, head and all, and hangs up."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # closed
            with connection:
                try:
                    connection.settimeout(2)
                    request = connection.recv(65536)
                    path = request.split(b" ")[1].decode("latin-1") if request.count(b" ") > 1 else ""
                    connection.sendall(self.answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
                except OSError:
                    continue  # the client has gone

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    with closing(RawServer()) as made:
        yield made


def answer(body: bytes, kind: str, *more: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    video = write_video(folder / "a.mp4", frames=8, audio_s=0.3).read_bytes()
    part = write_video(folder / "a.ts", frames=8).read_bytes()
    jpeg = files.jpeg_bytes(files.scene(24, 32))
    head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
    variants = b"#EXTM3U\n" + b"".join(b"#EXT-X-STREAM-INF:BANDWIDTH=%d\nb.m3u8\n" % n for n in (1000, 9000))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(jpeg[at : at + 99]), jpeg[at : at + 99]) for at in range(0, len(jpeg), 99))
    return {
        "/a.jpg": answer(jpeg, "image/jpeg"),
        "/a.mp4": answer(video, "video/mp4", "Accept-Ranges: none"),
        "/a.ts": answer(part, "video/mp2t"),
        "/a.m3u8": answer(variants, "application/vnd.apple.mpegurl"),
        "/b.m3u8": answer(
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.3,\na.ts\n#EXTINF:0.3,\na.ts\n#EXT-X-ENDLIST\n",
            "application/vnd.apple.mpegurl",
        ),
        "/live.mjpeg": answer((head + jpeg + b"\r\n") * 5, "multipart/x-mixed-replace; boundary=b"),
        "/chunked.jpg": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
        "/moved.jpg": b"HTTP/1.1 302 Found\r\nLocation: /a.jpg\r\nContent-Length: 0\r\n\r\n",
    }


def frames_in(url: str) -> int:
    with closing(open_source(url, options=OPTIONS)) as source:
        return sum(1 for _ in source)


def test_the_whole_answers_are_read(server: RawServer, whole: dict[str, bytes]) -> None:
    server.answers = whole
    assert all(frames_in(server.url + path) for path in whole)


@fuzzed(30)
@given(number=st.integers(0, 99), made=changes)
def test_a_damaged_answer_is_read_or_refused_in_one_line(
    server: RawServer, whole: dict[str, bytes], tmp_path: Path, number: int, made: list[Change]
) -> None:
    path = [*whole][number % len(whole)]
    damaged = changed(whole[path], made, list(whole.values()))
    server.answers = {**whole, path: damaged}
    with limited(damaged, tmp_path / "answer"), may_be_refused():
        frames_in(server.url + path)


@fuzzed(30)
@given(made=changes)
def test_a_download_is_whole_or_refused_in_one_line(
    server: RawServer, whole: dict[str, bytes], tmp_path: Path, made: list[Change]
) -> None:
    damaged = changed(whole["/a.mp4"], made, list(whole.values()))
    server.answers = {**whole, "/a.mp4": damaged}
    download = Download(
        f"{server.url}/a.mp4", tmp_path / "weights.pt", on_progress=None, timeout_s=1, most_bytes=1_000_000
    )
    with limited(damaged, tmp_path / "answer"), may_be_refused():
        download.run(attempts=2, sleep=lambda _: None)

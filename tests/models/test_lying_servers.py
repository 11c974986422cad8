"""Downloads from servers that lie about lengths, never end, drip or redirect: each ends, in a file or in one line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.errors import ModelError
from stream.models.weights import connection, download, fetch
from stream.notes import Notes, collected
from tests.support.weights_server import CONTENT, Fault, Handler, Server, cut, partial, redirect, serving

LIMIT_BYTES = 200_000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "_BESIDE_BYTES", LIMIT_BYTES)
    monkeypatch.setattr(fetch, "_COPIES", 0)
    with serving() as running:
        yield running


def fetched(server: Server, folder: Path, **options: object) -> bytes:
    settings = {"attempts": 2, "timeout_s": 1.0, "sleep": lambda _s: None} | options
    with collected(Notes()):
        return fetch.fetch(server.spec(), folder, **settings).path.read_bytes()  # type: ignore[arg-type]


def refusal(server: Server, folder: Path, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        fetched(server, folder, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not (folder / "tiny.pt").exists()
    return str(caught.value)


def raw(*parts: bytes, repeats: bytes = b"", body: bytes = CONTENT) -> Fault:
    """An answer of these header lines, and then `body`, or `repeats` until nobody reads it."""

    def answer(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"\r\n".join(parts) + b"\r\n\r\n" if parts else b"")
        while repeats:
            handler.wfile.write(repeats)
        handler.wfile.write(body)

    return answer


OK = b"HTTP/1.1 200 OK"
DIGITS = "²²".encode("latin-1")


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: -5",
        b"Content-Length: " + DIGITS,
        b"Content-Length: 5e4",
        b"Content-Length: ",
        b"ETag: \x00\xff",
    ],
)
def test_a_length_that_is_none_is_unknown(server: Server, tmp_path: Path, header: bytes) -> None:
    server.faults = [raw(OK, header)]
    assert fetched(server, tmp_path) == CONTENT


@pytest.mark.parametrize("length", [b"200001", b"1" + b"0" * 18, b"9" * 20_000])
def test_a_length_beyond_what_the_file_can_have_ends_the_download(
    server: Server, tmp_path: Path, length: bytes
) -> None:
    server.faults = [raw(OK, b"Content-Length: " + length)]
    assert "sends more than the 200 kB that this file can have" in refusal(server, tmp_path)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "fault",
    [
        raw(OK, repeats=b"x" * 65536),
        raw(OK, b"Transfer-Encoding: chunked", repeats=b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    ],
)
def test_a_body_without_end_ends(server: Server, tmp_path: Path, fault: Fault) -> None:
    server.faults = [fault]
    assert "sends more than the 200 kB" in refusal(server, tmp_path)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("size", [b"-1", b"4000000000000000", b"zz", b"", b"f" * 40])
def test_a_chunk_of_an_odd_size_is_a_broken_connection(server: Server, tmp_path: Path, size: bytes) -> None:
    server.faults = [raw(OK, b"Transfer-Encoding: chunked", body=size + b"\r\nxx")] * 2
    assert "failed 2 times; last error: the connection" in refusal(server, tmp_path)


@pytest.mark.parametrize(
    "fault", [raw(repeats=b"HTTP/1.1 100 Continue\r\n\r\n" * 99), raw(OK[:9], repeats=b"X: " + b"a" * 99 + b"\r\n")]
)
def test_headers_without_end_end(server: Server, tmp_path: Path, fault: Fault) -> None:
    server.faults = [fault] * 2
    assert "failed 2 times" in refusal(server, tmp_path, timeout_s=0.2)


def drip(data: bytes) -> Fault:
    """One byte at a time, each before any single wait would end."""

    def answer(handler: Handler) -> None:
        handler.close_connection = True
        for index in range(len(data)):
            handler.wfile.write(data[index : index + 1])
            if handler.server.released.wait(0.02):
                return

    return answer


@pytest.mark.parametrize("start", [b"", OK + b"\r\nContent-Length: 50000\r\n\r\n"])
def test_a_drip_is_no_download(server: Server, tmp_path: Path, start: bytes) -> None:
    answer = drip(OK + b"\r\nX: " + b"y" * 5000) if not start else None

    def body(handler: Handler) -> None:
        handler.wfile.write(start)
        drip(b"z" * 5000)(handler)

    server.faults = [answer or body] * 2
    error = refusal(server, tmp_path, timeout_s=0.3)
    assert "no data arrived in time" in error or "bytes arrived in 0 s" in error


CHUNKED = OK + b"\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n" + b"z" * 8192 + b"\r\n"


@pytest.mark.parametrize("line", [b"0\r\n" + b"a: b\r\n" * 2000, b"1;" + b"y" * 5000])
def test_lines_between_and_after_chunks_have_to_end(server: Server, tmp_path: Path, line: bytes) -> None:
    def body(handler: Handler) -> None:
        handler.wfile.write(CHUNKED)
        drip(line)(handler)

    server.faults = [body] * 2
    assert "no data arrived in time" in refusal(server, tmp_path, timeout_s=0.3)


def test_a_byte_at_a_time_is_no_progress(server: Server, tmp_path: Path) -> None:
    server.faults = [cut(1), *[lambda handler: handler.publish(cut_bytes=1)] * 9]
    assert "failed 2 times" in refusal(server, tmp_path)
    assert len(server.requests) == 2


def test_a_download_may_not_take_for_ever(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_LONGEST_START_S", 0.0)
    monkeypatch.setattr(download, "_LEAST_RATE", 1e12)
    server.faults = [cut(10_000)]
    assert "the download took longer than 0.0 hours; run again to go on" in refusal(server, tmp_path)
    assert fetched(server, tmp_path) == CONTENT


@pytest.mark.parametrize(
    "answer",
    [
        b"Content-Range: bytes 20000-49999/" + b"9" * 5000,
        b"Content-Range: bytes 20000-49999/*",
        b"Content-Range: bytes -20000-49999/50000",
        b"Content-Range: bytes 20000",
        b"X: none",
    ],
)
def test_a_range_that_is_none_is_no_rest(server: Server, tmp_path: Path, answer: bytes) -> None:
    server.faults = [cut(20_000), raw(b"HTTP/1.1 206 Partial Content", answer, b'ETag: "v1"', body=b"lies" * 9000)]
    assert fetched(server, tmp_path, attempts=3) == CONTENT


def test_a_rest_that_is_too_long_is_dropped(server: Server, tmp_path: Path) -> None:
    def longer(handler: Handler) -> None:
        partial(start=20_000, etag='"v1"')(handler)
        handler.wfile.write(b"more")

    server.faults = [cut(20_000), longer]
    assert fetched(server, tmp_path, attempts=3) == CONTENT


def test_what_is_encoded_is_refused(server: Server, tmp_path: Path) -> None:
    server.faults = [raw(OK, b"Content-Encoding: gzip")]
    assert "the server sent the file encoded (gzip)" in refusal(server, tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://127.0.0.1/"])
def test_a_redirect_to_another_scheme_is_refused(server: Server, tmp_path: Path, url: str) -> None:
    server.faults = [redirect(url)] * 2
    assert url.partition(":")[0] in refusal(server, tmp_path)
    assert len(server.requests) == 1


def test_the_body_of_a_redirect_is_not_read(server: Server, tmp_path: Path) -> None:
    server.faults = [raw(b"HTTP/1.1 302 Found", b"Location: /far", repeats=b"x" * 65536)]
    assert fetched(server, tmp_path, timeout_s=5.0) == CONTENT
    assert [path for path, _ in server.requests] == ["/tiny.pt", "/far"]


def test_a_redirect_into_a_private_network_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = connection._Hops.check

    def from_outside(hops: connection._Hops, *arguments: object) -> None:
        check(hops, *arguments)  # type: ignore[arg-type]
        hops._begins_private = False  # as if the server were a public one

    monkeypatch.setattr(connection._Hops, "check", from_outside)
    server.faults = [redirect(server.url)]
    assert "redirects into a private network (127.0.0.1), which is not followed" in refusal(server, tmp_path)
    assert len(server.requests) == 1  # the second connection was closed before anything was sent


@pytest.mark.parametrize("name", ["tiny.pt.part", "tiny.pt.part.json", "tiny.pt"])
def test_nothing_is_written_through_a_link(server: Server, tmp_path: Path, name: str) -> None:
    folder, victim = tmp_path / "cache", tmp_path / "victim"
    folder.mkdir()
    victim.write_bytes(b"precious")
    about = json.dumps({"validator": '"v1"', "total_bytes": len(CONTENT)})
    (folder / "tiny.pt.part.json").write_text(about)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(victim if name != "tiny.pt" else tmp_path / "nothing")
    assert fetched(server, folder) == CONTENT
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "nothing").exists()
    assert not (folder / "tiny.pt").is_symlink()


@pytest.mark.parametrize(
    "about", ["[" * 9000, '{"validator": 5, "total_bytes": "x"}', '{"validator": null}', "9" * 5000]
)
def test_a_record_of_a_part_that_is_none(server: Server, tmp_path: Path, about: str) -> None:
    (tmp_path / "tiny.pt.part").write_bytes(CONTENT[:20_000])
    (tmp_path / "tiny.pt.part.json").write_text(about)
    assert fetched(server, tmp_path) == CONTENT
    assert "Range" not in server.requests[0][1]

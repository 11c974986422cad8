"""Visitors of the live page who send anything; an honest one is served all the same."""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.limits import fuzzed, limited
from tests.fuzz.mutation import Change, changed, changes
from tests.live.test_browser import Live


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode() + body


def command(body: bytes, *headers: str) -> bytes:
    kind, length = "Content-Type: application/json", f"Content-Length: {len(body)}"
    return request("POST /command", kind, length, *headers, body=body)


WHOLE = [
    request("GET /"),
    request("HEAD /live.js", "Accept-Encoding: gzip"),
    request("GET /pictures"),
    request("GET /events", "Accept: text/event-stream", "Last-Event-ID: 3"),
    request("GET /snapshot.jpg?at=1", "Range: bytes=0-9", "If-None-Match: *"),
    request("GET /?token=abc", "Cookie: depthstream=abc; a=b", "Origin: http://localhost", "Sec-Fetch-Site: none"),
    request("GET /events", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: YQ=="),
    command(b'{"name": "colormap", "value": "gray"}'),
    command(b'{"name": "pick", "value": [0.5, 0.5]}', "Origin: http://localhost"),
    command(b"2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    made = Live(tmp_path_factory.mktemp("live"))
    made.feed()
    yield made
    made.sink.finish()
    made.client.close()


def visit(port: int, sent: bytes) -> None:
    """The server may hang up at any time, or wait for the rest."""
    with (
        contextlib.suppress(OSError),
        closing(socket.create_connection(("127.0.0.1", port), timeout=0.1)) as visitor,
    ):
        visitor.sendall(sent)
        visitor.recv(65536)


@fuzzed(60)
@given(number=st.integers(0, len(WHOLE) - 1), made=changes, again=st.booleans())
def test_a_damaged_request_is_answered_or_refused(
    live: Live, tmp_path: Path, number: int, made: list[Change], again: bool
) -> None:
    sent = changed(WHOLE[number], made, WHOLE)
    with limited(sent, tmp_path / "request"):
        visit(live.port, sent + (WHOLE[0] if again else b""))
        live.feed()
        assert live.client.get("live.css").status_code == 200
    assert live.sink.notes == []

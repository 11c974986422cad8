"""The live page's server among clients that mean no good; over real connections to 127.0.0.1."""

import contextlib
import itertools
import json
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from stream.cli.main import invoke
from stream.config import GENERATED_TOKEN
from stream.errors import ConfigError
from stream.live import connections, server
from stream.live.address import tls_context
from stream.live.connections import peer_group
from stream.live.server import MAX_VIEWERS
from stream.media import cv2
from tests.support.live_page import ANOTHER_KEY, CERTIFICATE, KEY, LOCKED_KEY, WAIT_S, Live
from tests.support.waiting import until

COMMAND = (
    b"POST /command HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{"
)
PAGE = b"GET /live.css HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    made: list[Live] = []

    def make(**options: object) -> Live:
        made.append(Live(tmp_path, **options))  # type: ignore[arg-type]
        made[-1].feed()
        return made[-1]

    yield make
    for live in made:
        live.sink.finish()
        live.client.close()
        assert live.sink.notes == []


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A certificate, its key and other files."""
    texts = {"cert": CERTIFICATE, "key": KEY, "both": CERTIFICATE + KEY, "another": ANOTHER_KEY, "locked": LOCKED_KEY}
    texts |= {"text": "nothing", "torn": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}
    paths = {name: tmp_path / f"{name}.pem" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text)
    return paths | {"folder": tmp_path, "missing": tmp_path / "none.pem"}


def connected(live: Live, stack: contextlib.ExitStack, sent: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    client = stack.enter_context(socket.socket())
    client.settimeout(WAIT_S)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.bind((source, 0))
    client.connect(("127.0.0.1", live.port))
    client.sendall(sent)
    return client


def answer(live: Live, request: bytes) -> bytes:
    """All that comes until the server closes the connection."""
    received = b""
    with contextlib.ExitStack() as stack, contextlib.suppress(ConnectionError):
        client = connected(live, stack, request)
        while part := client.recv(65536):
            received += part
    return received


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def drips(client: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        client.send(b"x")
    return is_closed(client)


@pytest.mark.parametrize(
    ("sent", "then"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: ", b""),
        (PAGE, b"GET / HT"),
        (PAGE + b"GET / HT", b""),
        (COMMAND, b""),
        (COMMAND.replace(b"localhost", b"evil.example"), b""),
        (COMMAND.replace(b"application/json", b"text/plain"), b""),
        (b"GET /pictures HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", b""),
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n", b""),
    ],
    ids=["nothing", "headers", "second", "pipelined", "body", "foreign", "refused", "images", "chunks"],
)
def test_an_unfinished_request_ends_at_its_deadline_however_it_drips(
    serve: Callable[..., Live], sent: bytes, then: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    live = serve()
    with contextlib.ExitStack() as stack:
        clients = [connected(live, stack, sent) for _ in range(3)]
        if then:
            for client in clients:
                assert client.recv(65536)
                client.sendall(then)
        for client in clients:
            until(lambda client=client: drips(client), "the deadline")
    assert live.client.get("").status_code == 200


@pytest.mark.parametrize("sent", [b"", b"GET / HT", COMMAND, PAGE], ids=["silent", "headers", "body", "idle"])
def test_a_newcomer_gets_in_though_others_hold_all_connections(serve: Callable[..., Live], sent: bytes) -> None:
    live = serve()
    with contextlib.ExitStack() as stack:
        for _ in range(connections.MAX_CONNECTIONS + 20):
            client = connected(live, stack, sent)
            if sent == PAGE:
                client.recv(100)
                client.sendall(b"G")
        assert httpx.get(live.url, trust_env=False).status_code == 200
    assert live.sink.counters["page_closed_for_another"] > 0


def test_a_busy_address_gives_way_to_another(serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    live = serve()
    with contextlib.ExitStack() as stack:
        head = PAGE.replace(b"GET", b"HEAD")
        one = connected(live, stack, head)
        one.recv(65536)  # idle, which is the first to give way among its own
        for _ in range(20):
            connected(live, stack, b"GET / HT", source="127.0.0.2")
        until(lambda: live.sink.counters.get("page_closed_for_another", 0) >= 12, "the others to give way")
        one.sendall(head)
        assert one.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("address", "group"), [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1")])
def test_addresses_that_count_together(address: str, group: str) -> None:
    assert peer_group(address) == group
    assert peer_group("2001:db8::1") == peer_group("2001:db8::ffff:2") != peer_group("2001:db8:0:1::1")
    assert peer_group("fe80::1%eth0") == peer_group("fe80::1")


def first_status(live: Live, path: str, **options: object) -> int:
    with live.client.stream("GET", path, **options) as reply:  # type: ignore[arg-type]
        return reply.status_code


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_viewer_that_does_not_read_gives_its_place_to_one_that_waits(
    serve: Callable[..., Live], is_frozen: bool
) -> None:
    live = serve()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        for _ in range(MAX_VIEWERS):
            connected(live, stack, b"GET /pictures HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: live.sink.viewers == MAX_VIEWERS, "all places to be taken")
        live.feed((480, 640))
        status = pool.submit(first_status, live, "pictures")
        until(lambda: (is_frozen or live.feed((480, 640)) or True) and status.done(), "a place")
        assert status.result() == 200
    assert live.sink.counters["page_viewers_displaced"] >= 1


def test_a_listener_that_does_not_read_gives_its_place_to_one_that_waits(
    serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_LISTENERS", 2)
    live = serve()
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            connected(live, stack, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").recv(10)
        assert first_status(live, "events") == 200


def test_one_address_cannot_keep_others_from_watching(serve: Callable[..., Live]) -> None:
    live = serve()
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_VIEWERS):
            connected(live, stack, b"GET /pictures HTTP/1.1\r\nHost: localhost\r\n\r\n", source="127.0.0.2")
        until(lambda: live.sink.viewers == MAX_VIEWERS, "all places to be taken")
        assert first_status(live, "pictures") == 200


def test_who_does_not_take_an_answer_is_closed(serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_S", 0.3)
    live = serve()
    live.feed((1080, 1920))
    with contextlib.ExitStack() as stack:
        connected(live, stack, b"GET /snapshot.npy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: live.sink.counters.get("page_closed_not_reading"), "the deadline")


@pytest.mark.slow
def test_who_reads_steadily_gets_the_whole_answer(serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_S", 1.0)
    live = serve()
    size = 40_000_000
    live.sink.feed.snapshot = lambda: (b"", bytes(size))
    received, pause = 0, threading.Event()
    with live.client.stream("GET", "snapshot.npy") as reply:
        for part in reply.iter_bytes(1 << 18):
            received += len(part)
            pause.wait(0.015)
    assert received == size


def test_a_crowd_of_hostile_clients_neither_refuses_nor_cuts_a_viewer(serve: Callable[..., Live]) -> None:
    """A small version of scripts/measure/page_load.py."""
    live = serve()
    over, lock, seen, statuses = threading.Event(), threading.Lock(), [0, 0], []
    asks = b"GET /pictures HTTP/1.1\r\nHost: localhost\r\n\r\n"
    kinds = itertools.cycle([b"", b"GET / HT", COMMAND, asks, PAGE])

    def watch(which: int) -> None:
        with live.client.stream("GET", "pictures") as reply:
            statuses.append(reply.status_code)
            for part in reply.iter_bytes():
                seen[which] += part.count(b"\xff\xd9\r\n--")

    def attack(sent: bytes) -> None:
        with contextlib.ExitStack() as stack:
            for turn in itertools.count():
                if over.wait(0.02):
                    return
                with contextlib.suppress(OSError):
                    connected(live, stack, sent)
                if turn % 10 == 9:
                    stack.close()

    viewers = [threading.Thread(target=watch, args=(which,)) for which in range(2)]
    hostile = [threading.Thread(target=attack, args=(next(kinds),)) for _ in range(10)]
    for thread in viewers + hostile:
        thread.start()
    for _ in range(20):
        before = list(seen)
        until(lambda before=before: live.feed() is None or all(map(int.__lt__, before, seen)), "both to see the next")
        with lock:
            statuses.append(live.client.get("").status_code)
    over.set()
    for thread in hostile:
        thread.join()
    live.sink.finish()
    for thread in viewers:
        thread.join()
    assert set(statuses) == {200}


FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_other_sites_show_nothing_of_this_one(serve: Callable[..., Live], headers: dict[str, str]) -> None:
    live = serve()
    for path in ("", "live.js", "pictures", "events", "snapshot.png", "snapshot.npy", "recordings/0"):
        assert first_status(live, path, headers=headers) == 403
        assert live.client.head(path, headers=headers).status_code == 403


def test_other_sites_may_link_to_the_page_alone(serve: Callable[..., Live]) -> None:
    live = serve()
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    opened = live.client.get("", headers=link)
    assert opened.status_code == 200
    assert opened.headers["cross-origin-opener-policy"] == "same-origin"
    for path in ("pictures", "snapshot.png", "events"):
        assert first_status(live, path, headers=link) == 403
    typed = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert first_status(live, "snapshot.png", headers=typed) == 200


def test_an_image_is_encoded_once_whoever_asks(serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    real = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *given: encoded.append(given[0]) or real(*given))
    live = serve()
    with ThreadPoolExecutor(8) as pool:
        kinds = ["snapshot.png", "snapshot.npy"] * 8
        contents = {reply.content for reply in pool.map(live.client.get, kinds)}
    assert len(contents) == 2
    assert encoded.count(".png") == 1
    live.feed()
    assert live.client.get("snapshot.png").content not in contents


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("GET /pictures HTTP/1.1", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", 400),
        ("GET http://evil.example/snapshot.png HTTP/1.1", "", 400),
        ("CONNECT evil.example:443 HTTP/1.1", "", 405),
        ("OPTIONS * HTTP/1.1", "", 405),
        ("TRACE / HTTP/1.1", "", 405),
        ("PUT /command HTTP/1.1", "Content-Length: 0\r\n", 405),
        ("POST /command HTTP/1.1", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", 400),
        ("GET /pictures HTTP/1.1", "Content-Length: 2\r\n", 413),
        ("GET / HTTP/1.1", "X: " + "a" * 20_000 + "\r\n", 431),
        ("GET / HTTP/1.1", "X: " + "a" * 200_000 + "\r\n", 400),
        ("GET / HTTP/1.1", "a:\r\n" * 50_000, 400),
        ("GET /?" + "a" * 3000 + " HTTP/1.1", "", 414),
        ("GET /?" + "a" * 100_000 + " HTTP/1.1", "", 400),
        ("GET /", "", 400),
        ("\x16\x03\x01\x02", "", 400),
        ("GET / HTTP/1.1", "Content-Length : 5\r\n", 400),
        ("GET / HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n", 501),
        ("GET /snapshot.exe HTTP/1.1", "", 404),
        ("GET /snapshot.png%00 HTTP/1.1", "", 404),
        ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", "", 404),
        ("GET //pictures HTTP/1.1", "", 404),
        ("GET /pictures/ HTTP/1.1", "", 404),
        ("HEAD /pictures HTTP/1.1", "", 200),
        ("HEAD /events HTTP/1.1", "", 200),
    ],
)
def test_odd_requests(serve: Callable[..., Live], request_line: str, headers: str, status: int) -> None:
    live = serve()
    end = "0\r\n\r\nGET /snapshot.npy HTTP/1.1\r\nHost: localhost\r\n\r\n" if "chunked" in headers else ""
    text = f"{request_line}\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n{end}"
    got = answer(live, text.encode("latin-1"))
    assert int(got.split()[1]) in {status, 400 if status in (501, 431) else status}
    assert got.count(b"HTTP/1.1 ") == 1, "what follows an odd request is none"
    assert b"\r\nlocation:" not in got.lower()
    assert live.sink.viewers == 0
    assert live.client.get("").status_code == 200


def test_garbage_after_an_answer_has_begun_is_no_traceback(
    serve: Callable[..., Live], caplog: pytest.LogCaptureFixture
) -> None:
    live = serve()
    chunked = b"POST /command HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with contextlib.ExitStack() as stack:
        client = connected(live, stack, chunked)
        assert client.recv(65536)
        client.sendall(b"no length\r\n")
        until(lambda: is_closed(client), "its end")
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert live.sink.counters["page_closed_not_http"] == 1


def test_requests_sent_ahead_are_answered_up_to_a_limit(serve: Callable[..., Live]) -> None:
    live = serve()
    last = PAGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert answer(live, PAGE * 2 + last).count(b"HTTP/1.1 200") == 3
    with contextlib.ExitStack() as stack:
        client = connected(live, stack, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(10)
        client.settimeout(0.05)
        with contextlib.suppress(OSError):
            client.sendall(PAGE * 5000)
        client.settimeout(WAIT_S)
        until(lambda: drips(client), "its end")


def test_requests_sent_ahead_cost_their_own_address_alone(
    serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_REQUEST_COST_S", 20.0)  # its address pays 400 s for each
    live = serve()
    head = PAGE.replace(b"GET", b"HEAD")
    with contextlib.ExitStack() as stack:
        hostile = connected(live, stack, head * 20, source="127.0.0.2")
        assert hostile.recv(65536).count(b"HTTP/1.1 200") == 1
        for place in range(3, 8):
            assert connected(live, stack, head, source=f"127.0.0.{place}").recv(100).startswith(b"HTTP/1.1 200")
        hostile.setblocking(False)
        with pytest.raises(BlockingIOError):  # it waits
            hostile.recv(1)


def test_addresses_pay_alike_and_who_owes_little_waits_little(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    budget, cost_s = connections.Budget(), connections.SHARE
    assert budget.charge(connections._BURST_S * cost_s, "a") == 0.0, "free"
    assert budget.charge(100 * cost_s, "a") == pytest.approx(100)
    assert budget.charge(1 * cost_s, "b") == pytest.approx(2)
    assert budget.charge(0.0, "c") == 0.0
    now_s[0] = 2.0
    assert budget.charge(0.0, "b") == pytest.approx(0.0)
    assert budget.charge(0.0, "a") == pytest.approx(99)
    now_s[0] = 102.0
    assert budget.charge(cost_s, "a") == pytest.approx(0.0), "what was not used for a while is free again"


def test_several_ranges_of_a_recording_are_not_put_together(serve: Callable[..., Live], tmp_path: Path) -> None:
    live = serve()
    recorded = tmp_path / "a.mp4"
    recorded.write_bytes(b"0123456789")
    live.sink.feed.recordings = lambda: {0: recorded}
    assert live.client.get("recordings/0", headers={"Range": "bytes=2-3"}).content == b"23"
    many = live.client.get("recordings/0", headers={"Range": "bytes=" + ",".join(["0-"] * 500)})
    assert (many.status_code, many.content) == (200, b"0123456789")
    (tmp_path / "b.mp4").symlink_to(recorded)
    live.sink.feed.recordings = lambda: {0: tmp_path / "b.mp4", 1: tmp_path / "c\udcff.mp4"}
    assert live.client.get("recordings/0").status_code == 404
    assert live.client.get("recordings/1").status_code == 404


@pytest.mark.parametrize(
    "path", ["/", "//evil.example/", "//evil.example", "/\\evil.example", "/%2f%2fevil.example", "/https:evil.example"]
)
def test_a_token_in_an_address_leads_to_this_server_without_it(serve: Callable[..., Live], path: str) -> None:
    live = serve(token=GENERATED_TOKEN)
    (said,) = live.said
    token = said.rpartition("token=")[2]
    for accept in ("*/*", "text/html,application/xhtml+xml"):
        headers = f"Host: localhost\r\nConnection: close\r\nAccept: {accept}"
        request = f"GET {path}?token={token} HTTP/1.1\r\n{headers}\r\n\r\n"
        got = answer(live, request.encode()).decode()
        target = re.search(r"(?:location: |url=)([^\r\"]*)", got)
        assert target is not None
        assert re.fullmatch(r"\./[\w.]*", target[1]), "nothing that a browser takes for another host"
        cookie = next(line for line in got.splitlines() if line.lower().startswith("set-cookie"))
        assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
        assert got.count(token) == 1, "in the cookie"


def test_a_token_is_needed_on_this_machine_too_if_one_is_asked_for(serve: Callable[..., Live]) -> None:
    live = serve(token=GENERATED_TOKEN)
    (said,) = live.said
    address, _, token = said.removeprefix("watch at ").partition("?token=")
    assert address == live.url
    assert len(token) >= 20
    assert live.client.get("").status_code == 401
    posted = live.client.post("command", params={"token": token}, json={"name": "freeze", "value": True})
    assert posted.status_code == 401, "a command with a token in its address is none of the page's"
    assert live.client.get("", params={"token": token}, follow_redirects=True).status_code == 200
    assert live.client.post("command", json={"name": "freeze", "value": True}).status_code == 202
    assert live.sink.counters == {"page_refused_without_token": 2}


def test_a_token_may_hold_any_character(serve: Callable[..., Live]) -> None:
    live = serve(token="correct hörse&;=%")
    (said,) = live.said
    opened = live.client.get(said.removeprefix("watch at "), follow_redirects=True)
    assert (opened.status_code, opened.url.query) == (200, b"")


def test_the_page_by_tls(serve: Callable[..., Live], files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.5)
    live = serve(tls=tls_context(files["cert"], files["key"]), token="a-long-secret")
    assert live.url.startswith("https://127.0.0.1:")
    opened = live.client.get("", params={"token": "a-long-secret"})
    assert "Secure" in opened.headers["set-cookie"].split("; ")
    assert live.client.get("").status_code == 200
    assert b"200" not in answer(live, PAGE)[:20], "plain HTTP"
    with contextlib.ExitStack() as stack:
        hello = ssl.MemoryBIO()
        context = ssl.create_default_context(cadata=CERTIFICATE)
        client = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        whole = hello.read()
        for sent in (b"", whole[:50], whole):
            silent = connected(live, stack, sent)
            until(lambda silent=silent: is_closed(silent), "the end of a handshake")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(cadata=CERTIFICATE)
    with pytest.warns(DeprecationWarning, match="TLS"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", live.port)) as end, pytest.raises(OSError):  # noqa: PT011
        old.wrap_socket(end, server_hostname="localhost")
    assert live.client.get("").status_code == 200


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("missing", "key", "--serve-cert {missing}: cannot be read: No such file or directory"),
        ("folder", "key", "--serve-cert {folder}: is not a file"),
        ("text", "key", "--serve-cert {text}: holds no certificate (allowed: a PEM file)"),
        ("torn", "key", "--serve-cert {torn} --serve-key {key}: cannot be used for TLS: "),
        ("cert", None, "--serve-cert {cert}: holds no private key (allowed: a PEM file); add --serve-key"),
        ("cert", "cert", "--serve-key {cert}: holds no private key"),
        ("cert", "missing", "--serve-key {missing}: cannot be read: No such file or directory"),
        ("cert", "another", "--serve-key {another}: the key is not that of the certificate"),
        ("cert", "locked", "--serve-key {locked}: the key has a password; make a copy without one"),
        (None, "key", "--serve-key: needs --serve-cert; add --serve-cert, or remove it"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_one_line_before_the_run(
    certificate: str | None, key: str | None, said: str, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [("--serve-cert", certificate), ("--serve-key", key)]
    given = [word for flag, name in options if name for word in (flag, str(files[name]))]
    assert invoke(["run", "pattern:testsrc", "--serve", "127.0.0.1:0", *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"depthstream: {said.format(**files)}")
    assert error.count("\n") == 1


def test_one_file_may_hold_certificate_and_key(files: dict[str, Path], tmp_path: Path) -> None:
    assert tls_context(files["both"], None).minimum_version is ssl.TLSVersion.TLSv1_2
    pipe = tmp_path / "pipe"
    import os

    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="is not a file"):
        tls_context(pipe, None)


def test_that_others_can_read_plain_http_is_said(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    def said(*options: str) -> str:
        command = ["run", "pattern:testsrc", "--max-frames", "1", "--serve", *options]
        assert invoke([*command, "--serve-token=a-long-secret"]) == 0
        return capsys.readouterr().err

    tls = ["--serve-cert", str(files["cert"]), "--serve-key", str(files["key"])]
    assert "plain HTTP" in said("0.0.0.0:0")
    assert "plain HTTP" not in said("127.0.0.1:0")
    secure = said("0.0.0.0:0", *tls)
    assert "plain HTTP" not in secure
    assert "watch at https://0.0.0.0:" in secure


def test_what_the_page_closed_is_counted_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.1)
    caplog.set_level(logging.INFO, "depthstream")
    live = Live(tmp_path, token="a-long-secret")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            connected(live, stack)
        assert live.client.get("").status_code == 401
        until(lambda: live.sink.counters.get("page_closed_late") == 3, "the deadline")
    live.sink.finish()
    live.client.close()
    (note,) = [record.getMessage() for record in caplog.records if "live page" in record.getMessage()]
    assert "3 connections sent no whole request in time" in note
    assert "1 requests had no valid token" in note


@pytest.mark.parametrize(
    ("arguments", "token"),
    [
        (["--serve-token"], GENERATED_TOKEN),
        (["--serve-token", "--serve"], GENERATED_TOKEN),
        (["--serve-token", "--batch", "2"], GENERATED_TOKEN),
        (["--serve-token=a-long-secret"], "a-long-secret"),
        (["--serve-token=-a-long-secret"], "-a-long-secret"),
        (["--set", "serve_token=true"], GENERATED_TOKEN),
        ([], None),
    ],
)
def test_a_token_may_be_asked_for_without_naming_it(
    arguments: list[str], token: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["run", "pattern:testsrc", "--serve", *arguments, "--print-config"]) == 0
    said = capsys.readouterr().out
    assert (f"serve_token: {token}" in said.replace("'", "")) == (token is not None)


@pytest.mark.parametrize("token", ["", "short"])
def test_a_token_that_is_too_short_is_refused_and_not_shown(token: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "pattern:testsrc", "--serve", f"--serve-token={token}"]) == 2
    said = capsys.readouterr().err
    assert "--serve-token" in said
    assert not token or token not in said.replace("too short", "")


def test_a_generated_token_must_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "pattern:testsrc", "--serve", "--quiet", "--serve-token"]) == 2
    assert "--serve: --quiet hides the token that viewers need" in capsys.readouterr().err


def test_the_state_is_json_for_every_name(serve: Callable[..., Live]) -> None:
    live = serve()
    live.sink.feed.state = {"recordings": [(0, "c\udcff.mp4")]}
    assert json.dumps(live.state()["recordings"])

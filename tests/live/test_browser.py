"""The live page's server: who gets what, and what it refuses; over real connections to 127.0.0.1."""

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import yaml

import stream
from stream.capture.base import CaptureLog
from stream.cli.main import invoke
from stream.config import Config
from stream.errors import MissingExtraError, SinkError, UsageError
from stream.live import connections
from stream.live import guard as page_guard
from stream.live.guard import MAX_BODY_BYTES
from stream.live.server import MAX_VIEWERS, MAX_WAITING_COMMANDS, Address, parse_address
from stream.media import cv2
from stream.pipeline.runner import Pipeline
from stream.render.layout import Layout
from stream.render.range import EmaRange
from stream.render.renderer import Renderer
from tests.support.fakes import RecordingSink, ScriptedInference, ScriptedSource
from tests.support.live_page import WAIT_S, Live
from tests.support.waiting import until


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    made = Live(tmp_path)
    yield made
    made.sink.finish()
    made.client.close()
    assert [note for note in made.sink.notes if "ZeroDivisionError" not in note] == []


def test_the_page_needs_nothing_from_elsewhere_and_says_so(live: Live) -> None:
    answer = live.client.get("")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    for name in ("live.js", "live.css"):
        assert name in answer.text
        assert live.client.get(name).status_code == 200
    everything = answer.text + live.client.get("live.js").text + live.client.get("live.css").text
    assert "http://" not in everything
    assert "https://" not in everything


def test_nobody_watching_costs_no_encoding_and_many_cost_one(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    real = cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *a: encoded.append(a[0]) or real(*a))
    live.feed()
    assert encoded == [".jpg"], "the first picture, for whoever comes"
    until(lambda: live.sink.feed.newest.number == 1, "it to arrive")
    for _ in range(5):
        assert not live.feed()
    assert len(encoded) == 1
    viewers = [live.connect() for _ in range(3)]
    until(lambda: live.sink.viewers == 3, "three viewers")
    assert live.feed()
    assert len(encoded) == 2
    for viewer in viewers:
        viewer.close()


def test_a_viewer_gets_the_newest_picture(live: Live) -> None:
    live.feed()
    with live.client.stream("GET", "pictures") as answer:
        assert answer.headers["content-type"].startswith("multipart/x-mixed-replace")
        until(lambda: live.sink.viewers == 1, "the viewer")
        seen = b""
        for chunk in answer.iter_bytes():
            seen += chunk
            if seen.count(b"\xff\xd9\r\n--") == 3:
                break
            live.feed()
    pictures = seen.split(b"\r\n--depthstream-picture")
    assert pictures[1].count(b"\xff\xd8") == 1
    until(lambda: live.sink.viewers == 0, "it to be counted out")


@pytest.mark.slow
def test_a_stalled_viewer_holds_nobody_up_and_gathers_nothing(live: Live) -> None:
    stalled, quick = live.connect(), live.connect()
    until(lambda: live.sink.viewers == 2, "two viewers")
    received = 0

    def read() -> None:
        nonlocal received
        while data := quick.recv(65536):
            received += len(data)

    reader = threading.Thread(target=read)
    reader.start()
    sent = 0
    for _ in range(300):
        before = received
        live.feed((480, 640))
        sent += len(live.sink.feed.newest.jpeg)
        until(lambda before=before: received > before, "the quick viewer to get a picture")
    assert received > 10_000_000
    backlog = [task for task in threading.enumerate() if "browser" in task.name]
    assert len(backlog) == 1
    stalled.setblocking(False)
    waiting = 0
    try:
        while data := stalled.recv(1 << 20):
            waiting += len(data)
    except BlockingIOError:
        pass
    assert waiting < 0.2 * received, "only what the system's buffers hold"
    live.sink.finish()
    reader.join(WAIT_S)
    stalled.close()
    quick.close()


def test_commands_change_what_all_see(live: Live) -> None:
    live.feed()
    assert live.command("layout", "overlay").status_code == 202
    live.command("colormap", "turbo")
    live.command("alpha", 0.3)
    live.command("range", "0.1:0.9")
    live.command("model", "two")
    live.command("freeze", True)
    state = until(lambda: (s := live.state())["frozen"] and s, "the last command")
    assert [state[key] for key in ("layout", "colormap", "alpha", "range", "model")] == [
        "overlay", "turbo", 0.3, "0.1:0.9", "two",
    ]  # fmt: skip
    assert live.preview.models is not None
    assert live.preview.models.current == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layout", "upside down"),
        ("colormap", 7),
        ("alpha", 2),
        ("range", "5:1"),
        ("model", "three"),
        ("rm", "-rf"),
        ("freeze", "x"),
    ],
)
def test_commands_that_make_no_sense_change_nothing(live: Live, name: str, value: object) -> None:
    live.feed()
    before = {k: v for k, v in live.preview.state().items() if k != "message"}
    live.command(name, value)
    after = live.preview.state()
    assert after.pop("message")
    assert after == before


def test_snapshots_and_recordings_are_downloads_by_number(live: Live, tmp_path: Path) -> None:
    assert live.client.get("snapshot.png").status_code == 404
    live.feed()
    assert live.client.get("snapshot.png").content.startswith(b"\x89PNG")
    depth = live.client.get("snapshot.npy")
    assert depth.headers["content-disposition"] == 'attachment; filename="depth.npy"'
    assert depth.content.startswith(b"\x93NUMPY")
    live.command("record", True)
    for _ in range(5):
        live.feed()
    live.command("record", False)
    ((number, name),) = live.preview.state()["recordings"]
    answer = live.client.get(f"recordings/{number}")
    assert answer.content == (tmp_path / name).read_bytes()
    for path in (
        "recordings/1",
        "recordings/-1",
        f"recordings/{name}",
        "recordings/../../etc/passwd",
        "..%2f..%2fetc/passwd",
    ):
        assert live.client.get(path).status_code in (404, 405)


ROUTES = ("", "live.css", "live.js", "favicon.ico", "snapshot.png", "snapshot.npy", "events", "pictures")
FOREIGN = (
    "evil.example", "evil.example:80", "evil.example:{port}", "127.0.0.1.nip.io", "127.0.0.1:{port}.evil.example",
    "localhost.evil.example", "evil-localhost", "0.0.0.0", "192.168.1.5:{port}", "[::2]", "127.1", "2130706433",
    "localhost:http", "localhost@evil.example", "localhost:1:2", "depth.example", "",
)  # fmt: skip
OWN = (
    "localhost:{port}", "localhost:9000", "LOCALHOST:9000", "localhost", "127.0.0.1:9000", "127.8.9.10", "[::1]:9000",
    "depth.localhost:9000", "localhost.:9000",
)  # fmt: skip


def status(live: Live, path: str, headers: dict[str, str]) -> int:
    with live.client.stream("GET", path, headers=headers) as answer:
        return answer.status_code


def test_a_name_that_may_be_anybodys_is_refused(live: Live) -> None:
    live.feed()
    claims = {"X-Forwarded-Host": "localhost", "Forwarded": "host=localhost", "X-Forwarded-For": "127.0.0.1"}
    for host in FOREIGN:
        sent = {"Host": host.format(port=live.port), **claims}
        assert status(live, "", sent) in (400, 421), host
        answer = live.client.post("command", json={"name": "freeze", "value": True}, headers=sent)
        assert answer.status_code in (400, 421), host
    for path in (*ROUTES, "recordings/0", "nothing"):
        assert status(live, path, {"Host": "evil.example", **claims}) == 421
    live.feed()
    assert not live.preview.frozen


def test_through_a_tunnel_every_name_of_this_machine_serves_all(live: Live) -> None:
    live.feed()
    for path in ROUTES:
        assert status(live, path, {"Host": "localhost:9000"}) in (200, 204)
    for host in (name.format(port=live.port) for name in OWN):
        assert status(live, "", {"Host": host}) == 200, host
        own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert live.client.post("command", json={"name": "freeze", "value": True}, headers=own).status_code == 202
        other = {"Host": host, "Origin": "http://localhost:3000"}
        assert live.client.post("command", json={"name": "freeze", "value": False}, headers=other).status_code == 403


def test_a_proxys_name_is_accepted_once_it_is_given(live: Live, tmp_path: Path) -> None:
    refused = live.client.get("", headers={"Host": "depth.example:8443"})
    assert refused.status_code == 421
    assert "--serve-name depth.example" in refused.text
    proxied = Live(tmp_path, names=["depth.example"])
    proxied.feed()
    page, command = "https://depth.example", {"name": "freeze", "value": True}

    def posted(**headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return proxied.client.post("command", json=command, headers=sent).status_code

    try:
        for host in ("depth.example", "Depth.Example:8443", f"127.0.0.1:{proxied.port}"):  # proxies keep or replace it
            assert proxied.client.get("", headers={"Host": host}).status_code == 200
            assert posted(Host=host, Origin=page) == 202
            assert posted(Host=host, Origin="https://evil.example", X_Forwarded_Host="evil.example") == 403
            assert posted(Host=host, Origin="null") == 403
        for host in ("depth.example.evil.example", "evil.depth.example", "evil.example"):
            assert proxied.client.get("", headers={"Host": host}).status_code == 421
            assert posted(Host=host, Origin=page) == 421
    finally:
        proxied.sink.finish()
        proxied.client.close()
    assert live.client.post("command", json=command, headers={"Origin": page}).status_code == 403
    assert "--serve-name" in live.client.post("command", json=command, headers={"Origin": page}).text


def test_the_page_works_under_any_path(live: Live) -> None:
    page, script = live.client.get("").text, live.client.get("live.js").text
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    links += re.findall(r'(?:fetch|EventSource)\("([^"]*)"|\.(?:src|href) = "([^"]*)"', script)
    flat = [part for link in links for part in ([link] if isinstance(link, str) else link) if part]
    assert {"live.css", "live.js", "pictures", "command", "events", "pictures?", "recordings/"} <= set(flat)
    for link in flat:
        assert urljoin("https://host.example/depth/", link).startswith("https://host.example/depth/")


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("depth.example", ("depth.example",)),
        ("Depth.Example., b.example", ("depth.example", "b.example")),
        ("bücher.example", ("xn--bcher-kva.example",)),
        ("[FE80::1]", ("fe80::1",)),
    ],
)
def test_names_of_a_proxy(given: str, key: tuple[str, ...]) -> None:
    assert Config.model_validate({"output": {"serve_name": given}}).output.serve_name == key


def test_names_of_a_proxy_may_be_given_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--serve-name", "a.example", "--serve-name", "b.example,c.example"]
    assert invoke(["run", "pattern:testsrc2", "--serve", *given, "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["output"]["serve_name"] == ["a.example", "b.example", "c.example"]


@pytest.mark.parametrize("name", ["https://depth.example", "depth.example:8443", "depth.example/x", "a..b", "*"])
def test_what_is_no_proxys_name_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "pattern:testsrc", "--serve", "--serve-name", name]) == 2
    assert "must be a host name such as depth.example.org, without https://" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_another_page_cannot_give_commands(live: Live, headers: dict[str, str], status: int) -> None:
    body = json.dumps({"name": "freeze", "value": True}).encode()
    sent = live.client.post("command", content=body, headers={"Content-Type": "application/json", **headers})
    assert sent.status_code == status
    live.feed()
    assert not live.preview.frozen


def test_requests_are_small_and_few_and_errors_say_nothing(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SEAT_WAIT_S", 0.2)
    json_type = {"Content-Type": "application/json"}
    assert live.client.post("command", content=b"x" * (MAX_BODY_BYTES + 1), headers=json_type).status_code == 413

    def endless() -> Iterator[bytes]:
        yield b"{}"

    assert live.client.post("command", content=endless(), headers=json_type).status_code == 413
    for body in (b"", b"[]", b"{", b'{"name": 1}', b'{"name": "x", "value": [1]}', b"\xff"):
        assert live.client.post("command", content=body, headers=json_type).status_code == 400
    for _ in range(MAX_WAITING_COMMANDS + 20):
        live.client.post("command", json={"name": "freeze", "value": False})
    assert len(live.sink.feed.commands) == MAX_WAITING_COMMANDS
    viewers = [live.connect() for _ in range(MAX_VIEWERS)]
    until(lambda: live.sink.viewers == MAX_VIEWERS, "a full house")
    assert live.client.get("pictures").status_code == 503
    for viewer in viewers:
        viewer.close()
    monkeypatch.setattr(live.sink.feed, "snapshot", lambda: 1 / 0)
    answer = live.client.get("snapshot.png")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    until(lambda: live.sink.notes, "the note")
    assert live.sink.notes == ["a request to the live page failed: ZeroDivisionError: division by zero"]


def test_off_this_machine_a_token_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(tmp_path, "0.0.0.0:0")
    try:
        (said,) = live.said
        token = said.rpartition("token=")[2]
        assert len(token) >= 20
        client = httpx.Client(base_url=f"http://127.0.0.1:{live.port}", trust_env=False, timeout=WAIT_S)
        for path in ("/", "/events", "/pictures", "/live.js", "/snapshot.png"):
            assert client.get(path).status_code == 401
            assert client.get(path, params={"token": token[:-1] + "~"}).status_code == 401
        compared: list[bytes] = []
        real = page_guard.hmac.compare_digest
        monkeypatch.setattr(page_guard.hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
        for path, place in ("/", "./"), ("/live.js", "./live.js"), ("/recordings/0", "./0"):
            answer = client.get(path, params={"token": token})
            assert (answer.status_code, answer.headers["location"]) == (303, place), "under the path of a proxy, too"
            assert str(answer.next_request and answer.next_request.url.path) == path
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert client.get("/").status_code == 200, "by the cookie"
        assert compared, "in constant time"
        client.close()
    finally:
        live.sink.finish()
        live.client.close()
    given = Live(tmp_path, "127.0.0.1:0", token="correct horse")
    assert given.client.get("").status_code == 401
    given.sink.abort(RuntimeError())
    given.client.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address("127.0.0.1", 8000)),
        (":9000", Address("127.0.0.1", 9000)),
        ("myhost", Address("myhost", 8765)),
        ("[::1]:80", Address("::1", 80)),
        ("[::1]", Address("::1", 8765)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert address.is_loopback == (address.host != "myhost")


@pytest.mark.parametrize("text", ["a:b", "h:70000", "127.0.0.1:-1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not a port"):
        parse_address(text)


def test_an_address_in_use_is_one_line(live: Live, tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot serve there: Address already in use"):
        Live(tmp_path, f"127.0.0.1:{live.port}")


def test_the_end_is_told_with_its_reason_and_leaves_no_thread(tmp_path: Path) -> None:
    live = Live(tmp_path)
    live.feed()
    seen: list[str] = []

    def listen() -> None:
        with live.client.stream("GET", "events") as answer:
            seen.extend(line for line in answer.iter_lines() if line)

    listener = threading.Thread(target=listen)
    listener.start()
    until(lambda: seen, "the first state")
    live.command("record", True)
    live.feed()
    live.sink.keep_partial("cam:0: stopped delivering")
    listener.join(WAIT_S)
    assert json.loads(seen[-1][6:])["ended"] == "cam:0: stopped delivering"
    assert not [thread for thread in threading.enumerate() if "browser" in thread.name]
    assert list(tmp_path.glob("*.mp4")), "a recording that was running is complete"
    with pytest.raises(httpx.ConnectError):
        live.client.get("")
    live.client.close()


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'depthstream\[web\]'"):
        Live(tmp_path)


def test_a_file_job_can_be_watched_and_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.media_files import write_video

    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", frames=12)
    report = stream.run("clip.mp4", serve="127.0.0.1:0")
    assert report.written == 12
    assert report.outputs[0] == "clip_depth.mp4"
    assert report.outputs[1].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("arguments", [["--serve"], ["--serve", "127.0.0.1:0"], ["--serve=127.0.0.1:0"]])
def test_serve_may_stand_alone(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", *arguments, "pattern:testsrc2", "--print-config"]) == 0
    out = capsys.readouterr().out
    assert "serve: 127.0.0.1:" in out
    assert "source: pattern:testsrc2" in out


def test_what_a_stalled_source_waits_for_is_told(live: Live) -> None:
    log = CaptureLog()
    live.preview.log = lambda: log
    live.feed()
    log.waiting = "reconnecting (2)"

    def told() -> bool:
        live.sink.poll()
        return bool(live.sink.feed.answer()["waiting"] == "reconnecting (2)")

    until(told, "the outage")


def test_connections_that_say_nothing_are_dropped(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    with contextlib.ExitStack() as opened:
        silent = [opened.enter_context(socket.create_connection(("127.0.0.1", live.port))) for _ in range(3)]
        for connection in silent:
            connection.settimeout(WAIT_S)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
    assert live.client.get("/").status_code == 200


def test_a_body_does_not_wait_until_its_head_is_acknowledged(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    without_delay: list[int] = []
    made = connections.Connection.connection_made

    def seen(self: connections.Connection, transport: asyncio.Transport) -> None:
        end: socket.socket = transport.get_extra_info("socket")
        without_delay.append(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, transport)

    monkeypatch.setattr(connections.Connection, "connection_made", seen)
    assert live.client.get("/").status_code == 200
    assert without_delay
    assert all(without_delay)


def test_deeply_nested_json_is_refused(live: Live) -> None:
    answer = live.client.post("/command", content=b"[" * 4000, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert not live.sink.notes


def test_a_picture_shown_in_a_window_is_shown_though_nobody_browses() -> None:
    class Shows(RecordingSink):
        needs_image = False

        def __init__(self, answer: bool) -> None:
            super().__init__(is_lossless=False)
            self.answer = answer

        def write(self, *_args: object) -> bool:
            return self.answer

    renderer = Renderer(layout=Layout.SIDE, colormap="inferno", range_policy=EmaRange())
    sinks: list[Any] = [Shows(True), Shows(False)]
    pipeline = Pipeline(ScriptedSource(5), ScriptedInference(), renderer, sinks)
    pipeline.run()
    assert (pipeline.metrics.shown, pipeline.metrics.not_shown) == (5, 0)


def test_a_token_that_nobody_would_be_told_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "pattern:testsrc", "--serve", "0.0.0.0:0", "--quiet", "--max-frames", "1"]) == 2
    assert "--serve: --quiet hides the token that viewers need; set one with --serve-token" in capsys.readouterr().err


def test_the_token_is_not_in_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "pattern:testsrc", "--serve", "0.0.0.0:0", "--serve-token=a-long-secret"]
    assert invoke([*arguments, "--max-frames", "2", "--report", str(tmp_path / "r.json")]) == 0
    assert "a-long-secret" in capsys.readouterr().err
    assert "a-long-secret" not in (tmp_path / "r.json").read_text()


@pytest.mark.parametrize(
    "options", [["--serve-token=12345678"], ["--serve-name", "x"], ["--virtual-camera-device", "x"]]
)
def test_options_of_what_was_not_asked_for_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "pattern:testsrc", *options]) == 2
    assert f"{options[0].partition('=')[0]}: needs --" in capsys.readouterr().err

"""Downloads against a server that breaks off, stalls, refuses and lies: whole, once, checked, or one line."""

import errno
import http.client
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from stream.errors import ModelError
from stream.models.spec import ModelSpec
from stream.models.weights.connection import Redirects
from stream.models.weights.download import Transfer, size_text
from stream.models.weights.fetch import Fetched, fetch
from stream.notes import Notes, collected
from tests.support.weights_server import (
    CONTENT,
    GIT_BLOB,
    SHA256,
    Handler,
    Server,
    cut,
    page,
    partial,
    redirect,
    refuse,
    serving,
    stall,
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as running:
        yield running


class Run:
    """Fetches with everything recorded; waits take no time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waits: list[float] = []
        self.notes: list[str] = []
        self.transfers: list[Transfer] = []

    def __call__(self, spec: ModelSpec, **options: Any) -> Fetched:
        hooks = {"on_progress": self.transfers.append, "sleep": self.waits.append}
        with collected(Notes(options.pop("on_note", self.notes.append))):
            return fetch(spec, self.folder, **(hooks | options))

    def fails(self, spec: ModelSpec, **options: Any) -> str:
        with pytest.raises(ModelError) as caught:
            self(spec, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.suffix != ".lock")


PARTIAL = ["tiny.pt.part", "tiny.pt.part.json"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "a" / "cache")


def test_a_file_is_fetched_checked_and_alone(server: Server, run: Run) -> None:
    fetched = run(server.spec())
    assert fetched == Fetched(path=run.folder / "tiny.pt", sha256=SHA256)
    assert fetched.path.read_bytes() == CONTENT
    assert run.left == ["tiny.pt"]
    assert run.notes == [f"downloading tiny.pt to {run.folder}"]
    last = Transfer(file="tiny.pt", done_bytes=len(CONTENT), total_bytes=len(CONTENT))
    assert run.transfers[-1] == last
    assert server.requests[0][1]["User-Agent"].startswith("depthstream/")


def test_the_licence_is_said_where_it_matters_and_the_unverified_is_said(server: Server, run: Run) -> None:
    fetched = run(server.spec(sha256=None, licence="CC-BY-NC-4.0"))
    assert fetched.sha256 == SHA256
    assert run.notes[1:] == [
        "tiny.pt: its licence, CC-BY-NC-4.0, does not allow commercial use",
        "tiny.pt: not verified, because the publisher's sha256 is unknown",
    ]


def test_a_connection_lost_in_the_middle_is_resumed(server: Server, run: Run) -> None:
    server.faults = [cut(20_000), cut(7_000)]
    assert run(server.spec()).sha256 == SHA256
    assert (run.folder / "tiny.pt").read_bytes() == CONTENT
    asked = [(headers.get("Range"), headers.get("If-Range")) for _path, headers in server.requests]
    assert asked == [(None, None), ("bytes=20000-", '"v1"'), ("bytes=27000-", '"v1"')]
    assert run.waits == [1.0, 1.0]
    assert run.transfers[-1].resumed_bytes == 0  # nothing came from an earlier run
    assert [t.done_bytes for t in run.transfers] == sorted(t.done_bytes for t in run.transfers)


def test_a_later_run_goes_on_where_an_earlier_one_ended(server: Server, run: Run) -> None:
    server.faults = [cut(20_000)]
    error = run.fails(server.spec(), attempts=1)
    assert error.startswith(
        f"{server.url}: the download failed: the connection ended after 20 kB of 50 kB; "
        f"run again to resume after 20 kB, or download it by hand and put it into {run.folder}"
    )
    assert run.left == PARTIAL
    assert run(server.spec()).sha256 == SHA256
    assert server.requests[1][1]["Range"] == "bytes=20000-"
    assert run.transfers[-1] == Transfer(file="tiny.pt", done_bytes=50_000, total_bytes=50_000, resumed_bytes=20_000)
    assert run.waits == []
    assert run.left == ["tiny.pt"]


def test_ctrl_c_keeps_the_part_and_frees_the_lock(server: Server, run: Run) -> None:
    def interrupt(_transfer: Transfer) -> None:
        raise KeyboardInterrupt

    server.faults = [cut(20_000)]
    with pytest.raises(KeyboardInterrupt):
        run(server.spec(), on_progress=interrupt)
    assert run.left == PARTIAL
    assert run(server.spec()).sha256 == SHA256
    assert "Range" in server.requests[1][1]
    assert not any("another process" in note for note in run.notes)


def test_a_server_without_ranges_starts_over(server: Server, run: Run) -> None:
    server.has_ranges, server.faults = False, [cut(20_000)]
    assert run(server.spec()).sha256 == SHA256
    assert (run.folder / "tiny.pt").read_bytes() == CONTENT
    assert run.transfers[-1].resumed_bytes == 0


@pytest.mark.parametrize("etag", ['"v2"', None, 'W/"weak"'])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server: Server, run: Run, etag: str | None) -> None:
    server.faults, server.content, server.etag = [cut(20_000)], b"old" * 9_000, None if etag is None else '"v1"'
    run.fails(server.spec(), attempts=1)
    server.content, server.etag = CONTENT, etag
    assert run(server.spec(sha256=None)).sha256 == SHA256
    assert (run.folder / "tiny.pt").read_bytes() == CONTENT


def test_what_is_fetched_anew_was_not_resumed(server: Server, run: Run) -> None:
    def lose_ranges(handler: Handler) -> None:
        handler.publish(cut_bytes=5_000)
        server.has_ranges = False

    server.faults = [cut(20_000)]
    run.fails(server.spec(), attempts=1)
    server.faults = [lose_ranges]
    assert run(server.spec()).sha256 == SHA256
    assert [resumed for resumed, _group in groupby(t.resumed_bytes for t in run.transfers)] == [0, 20_000, 0]


def test_an_answer_that_may_leave_the_date_out_still_resumes(server: Server, run: Run) -> None:
    server.faults = [cut(20_000)]
    run.fails(server.spec(), attempts=1)
    server.faults = [partial(start=20_000, etag=None)]
    assert run(server.spec()).sha256 == SHA256
    assert (len(server.requests), run.waits) == (2, [])


@pytest.mark.parametrize(("start", "etag"), [(10_000, '"v1"'), (20_000, '"v2"')])
def test_the_wrong_part_or_version_is_not_taken(server: Server, run: Run, start: int, etag: str) -> None:
    server.faults = [cut(20_000), partial(start=start, etag=etag)]
    assert run(server.spec(sha256=None)).sha256 == SHA256
    assert "Range" not in server.requests[2][1]


def leave_part(run: Run, content: bytes, about: str) -> None:
    run.folder.mkdir(parents=True)
    (run.folder / "tiny.pt.part").write_bytes(content)
    (run.folder / "tiny.pt.part.json").write_text(about)


@pytest.mark.parametrize(
    ("content", "about"),
    [
        (CONTENT + b"too much", json.dumps({"validator": '"v1"', "total_bytes": len(CONTENT) + 99})),
        (b"?" * 30_000, "cut o"),
        (b"?" * 30_000, "[1]"),
        (CONTENT[:1] + b"?" * 30_000, json.dumps({"validator": '"v0"', "total_bytes": len(CONTENT)})),
        (b"?" * 30_000, '{"etag": 1}'),
    ],
    ids=["beyond the end", "no JSON", "a list", "another version", "unknown keys"],
)
def test_a_part_that_is_of_no_use_is_dropped(server: Server, run: Run, content: bytes, about: str) -> None:
    leave_part(run, content, about)
    assert run(server.spec()).sha256 == SHA256
    assert (run.folder / "tiny.pt").read_bytes() == CONTENT


def test_a_part_that_is_complete_needs_no_request(server: Server, run: Run) -> None:
    leave_part(run, CONTENT, json.dumps({"validator": '"v1"', "total_bytes": len(CONTENT)}))
    assert run(server.spec()).sha256 == SHA256
    assert server.requests == []
    assert run.left == ["tiny.pt"]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_final(server: Server, run: Run, code: int) -> None:
    server.faults = [refuse(code)]
    error = run.fails(server.spec())
    reason = http.client.responses[code]
    hint = f"download it by hand and put it into {run.folder}, or pass it with --weights"
    assert error == f"{server.url}: the server answered {code} ({reason}); {hint}"
    assert (len(server.requests), run.waits, run.left) == (1, [], [])


def test_trouble_that_passes_is_waited_for(server: Server, run: Run) -> None:
    server.faults = [refuse(500), refuse(503), refuse(429)]
    assert run(server.spec()).sha256 == SHA256
    assert run.waits == [1.0, 2.0, 4.0]


def test_trouble_that_stays_is_told(server: Server, run: Run) -> None:
    server.faults = [refuse(503)] * 9
    error = run.fails(server.spec())
    last = "last error: the server answered 503 (Service Unavailable)"
    assert f"failed 4 times; {last}; try again later, or download" in error
    assert (len(server.requests), run.waits, run.left) == (4, [1.0, 2.0, 4.0], [])


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/html; charset=utf-8", b"<p>Log in"), ("application/octet-stream", b"\n<!DOCTYPE html><html>Log in")],
)
def test_a_web_page_is_no_file(server: Server, run: Run, content_type: str, body: bytes) -> None:
    server.faults = [page(content_type, body)]
    error = run.fails(server.spec(sha256=None))
    assert f"{server.url}: the server sent a web page instead of the file" in error
    assert "--weights" in error
    assert (len(server.requests), run.left) == (1, [])


def test_a_web_page_does_not_cost_what_is_there(server: Server, run: Run) -> None:
    server.faults = [cut(20_000), page("text/html", b"<p>Log in")]
    assert "a web page" in run.fails(server.spec())
    assert (run.folder / "tiny.pt.part").read_bytes() == CONTENT[:20_000]


def test_an_answer_that_is_always_cut_off_ends(server: Server, run: Run) -> None:
    server.has_ranges, server.faults = False, [cut(20_000)] * 9
    error = run.fails(server.spec())
    assert "the connection ended after 20 kB of 50 kB" in error
    assert len(server.requests) == 4
    assert run.left == PARTIAL


def test_an_empty_answer_is_no_file(server: Server, run: Run) -> None:
    server.content = b""
    assert "the connection ended after 0 kB" in run.fails(server.spec(sha256=None))
    assert "tiny.pt" not in run.left


def test_another_file_is_removed(server: Server, run: Run) -> None:
    error = run.fails(server.spec(sha256="0" * 64))
    assert f"sha256 {SHA256} instead of {'0' * 64}; run again, or download it by hand" in error
    assert run.left == []


def test_redirects_are_followed_while_resuming_too(server: Server, run: Run) -> None:
    server.faults = [redirect("/far"), cut(20_000), redirect("/far?signed=1")]
    assert run(server.spec()).sha256 == SHA256
    assert [path for path, _headers in server.requests] == ["/tiny.pt", "/far", "/tiny.pt", "/far?signed=1"]
    assert server.requests[-1][1]["Range"] == "bytes=20000-"


def test_a_redirect_in_circles_ends(server: Server, run: Run) -> None:
    server.faults = [redirect("/tiny.pt")] * 30
    assert "the server answered 302" in run.fails(server.spec())


def test_a_redirect_from_https_to_http_is_refused() -> None:
    request, body = urllib.request.Request("https://a.invalid/x"), io.BytesIO()
    headers = http.client.HTTPMessage()
    followed = Redirects().redirect_request(request, body, 302, "Found", headers, "https://b.invalid/x")
    assert followed is not None
    assert followed.full_url == "https://b.invalid/x"
    with pytest.raises(ModelError, match=r"a\.invalid/x: redirects from https to http://b\.invalid/x"):
        Redirects().redirect_request(request, body, 302, "Found", headers, "http://b.invalid/x")
    assert body.closed


def test_a_server_that_falls_silent_is_asked_again(server: Server, run: Run) -> None:
    server.faults = [stall(20_000)]
    assert run(server.spec(), timeout_s=0.2).sha256 == SHA256
    assert server.requests[1][1]["Range"] == "bytes=20000-"


def test_a_server_that_stays_silent_is_told(server: Server, run: Run) -> None:
    server.faults = [stall(0)] * 2
    assert "failed 2 times; last error: no data arrived in time" in run.fails(server.spec(), timeout_s=0.05, attempts=2)


def test_nobody_listens(run: Run, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/tiny.pt"
    spec = replace(server.spec(), weights=replace(server.spec().weights, url=url))
    assert "failed 4 times; last error: cannot be reached: " in run.fails(spec)
    assert run.left == []


def test_a_certificate_that_is_not_trusted_is_final(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = ssl.SSLCertVerificationError(1, "certificate verify failed")
    reason.verify_message = "self-signed certificate"

    def fail(*_arguments: object, **_options: object) -> None:
        raise urllib.error.URLError(reason)

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", fail)
    assert "the server's certificate cannot be verified: self-signed certificate; download" in run.fails(server.spec())
    assert run.waits == []


def test_an_unpublished_file_has_to_be_given(server: Server, run: Run) -> None:
    spec = replace(server.spec(), weights=replace(server.spec().weights, url=None))
    error = run.fails(spec)
    assert error == "tiny: the weights (tiny.pt) were never published; if you have the file, pass it with --weights"


def test_no_room_is_said_before(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: type("Usage", (), {"free": len(CONTENT) - 1})())
    error = run.fails(server.spec())
    hint = f"free some space, or download {server.url}"
    assert error.startswith(f"{run.folder}: 50 kB to download, but only 50 kB is free; {hint}")
    assert run.left == []


def test_a_disk_that_fills_up_keeps_the_part(server: Server, run: Run) -> None:
    def fill(_transfer: Transfer) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    error = run.fails(server.spec(), on_progress=fill)
    assert error.startswith(f"{run.folder}: the disk is full; free some space")
    assert run.left == PARTIAL


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = Run(tmp_path / "file" / "cache")
    error = run.fails(server.spec())
    assert (
        error
        == f"{run.folder}: cannot be written: Not a directory; download {server.url} by hand and pass it with --weights"
    )
    assert server.requests == []


def test_two_threads_fetch_once(server: Server, run: Run) -> None:
    server.faults = [stall(0)]

    def release(note: str) -> None:
        if "waiting" in note:
            server.released.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, server.spec())
        assert server.arrived.wait(10)
        second = pool.submit(run, server.spec(), on_note=release)
        assert first.result().sha256 == SHA256
        assert second.result() == Fetched(path=run.folder / "tiny.pt", sha256=None)
    assert len(server.requests) == 1


def test_a_file_of_a_git_repository_is_checked_by_its_blob(server: Server, run: Run) -> None:
    fetched = run(server.spec(sha256=None, git_blob=GIT_BLOB))
    assert fetched.sha256 == SHA256
    assert run.notes == [f"downloading tiny.pt to {run.folder}"]  # and none that it is not verified


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_another_blob_is_deleted(server: Server, run: Run, sha256: str | None) -> None:
    error = run.fails(server.spec(sha256=sha256, git_blob="0" * 40))
    assert f"is not the published file: git blob {GIT_BLOB} instead of {'0' * 40}; run again" in error
    assert run.left == []


OTHER = """
import sys
from pathlib import Path
from stream.models.weights.fetch import fetch
from tests.support.weights_server import SHA256, STARTER, WeightsFile, replace
spec = replace(STARTER, weights=WeightsFile(file="tiny.pt", url=sys.argv[1], sha256=SHA256))
print(fetch(spec, Path(sys.argv[2])).sha256)
"""


def test_two_processes_fetch_once(server: Server, run: Run) -> None:
    server.faults = [stall(0)]
    notes: list[str] = []

    def release(note: str) -> None:
        notes.append(note)
        server.released.set()

    command = [sys.executable, "-c", OTHER, server.url, str(run.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert server.arrived.wait(30)
        assert run(server.spec(), on_note=release).sha256 is None
        assert other.communicate()[0].strip() == SHA256
    assert notes == ["tiny.pt: waiting for another process that is downloading it"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(1_340_000_000, "1.3 GB"), (99_200_000, "99 MB"), (3_400, "3 kB"), (0, "0 kB")]
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


def test_an_xml_file_is_no_web_page(server: Server, run: Run) -> None:
    server.content = b'<?xml version="1.0"?>\n<net name="midas"></net>\n'
    spec = server.spec(sha256=None)
    ir = replace(spec, weights=replace(spec.weights, file="tiny.xml"))
    assert run(ir).path.read_bytes() == server.content
    assert "a web page" in run.fails(spec)

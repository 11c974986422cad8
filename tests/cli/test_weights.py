"""`depthstream weights`, and a run that has to fetch its weights first."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from stream.cli.display import PLAIN_EVERY_S
from stream.cli.main import invoke
from stream.cli.progress import ProgressDisplay, describe_download
from stream.models import catalog
from stream.models.catalog import STARTER
from stream.models.weights import locate
from stream.models.weights.fetch import Transfer
from tests.support.weights_server import SHA256, Server, refuse, serving

PACKAGED = locate.find_file(STARTER).path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Publishes `tiny` and `second` (the same file, unverified); `secret` is in the catalog alone."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("DEPTHSTREAM_WEIGHTS", raising=False)
    monkeypatch.delenv("DEPTHSTREAM_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(locate, "cache_folder", lambda: tmp_path / "cache")
    with serving() as running:
        tiny = running.spec(licence="CC-BY-NC-4.0")
        second = replace(tiny, name="second", weights=replace(tiny.weights, file="second.pt", sha256=None))
        secret = replace(tiny, name="secret", weights=replace(tiny.weights, file="secret.pt", url=None))
        monkeypatch.setattr(catalog, "MODELS", (STARTER, tiny, second, secret))
        yield running


def test_the_list_tells_what_is_where(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["weights", "get", "tiny", "--quiet"]) == 0
    capsys.readouterr()
    assert invoke(["weights", "list"]) == 0
    starter, tiny, second, secret = (line.split(maxsplit=4) for line in capsys.readouterr().out.splitlines())
    assert starter == ["starter", "6", "MB", "Apache-2.0", str(PACKAGED)]
    assert tiny == ["tiny", "50", "kB", "CC-BY-NC-4.0", str(tmp_path / "cache" / "tiny.pt")]
    assert second == ["second", "-", "CC-BY-NC-4.0", "not", "here: second.pt"]
    assert secret[-1] == "here: secret.pt (not published)"


def test_the_list_for_programs(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tiny.safetensors").write_bytes(b"mine")
    assert invoke(["weights", "list", "--json", "--weights-dir", str(tmp_path / "mine")]) == 0
    out, err = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["tiny"] == {
        "name": "tiny",
        "file": "tiny.pt",
        "licence": "CC-BY-NC-4.0",
        "url": server.url,
        "path": str(tmp_path / "mine" / "tiny.safetensors"),
        "place": "user",
        "size_bytes": 4,
    }
    assert (rows["second"]["path"], rows["second"]["place"], rows["second"]["size_bytes"]) == (None, None, None)
    assert rows["starter"]["place"] == "package"
    assert err == ""


def test_get_prints_the_path_and_tells_people_the_licence(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["weights", "get", "tiny", "starter"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(tmp_path / "cache" / "tiny.pt"), str(PACKAGED)]
    assert err.splitlines() == [
        f"note: downloading tiny.pt to {tmp_path / 'cache'}",
        "note: tiny.pt: its licence, CC-BY-NC-4.0, does not allow commercial use",
    ]
    assert invoke(["weights", "get", "tiny"]) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'cache' / 'tiny.pt'}\n", "")
    assert len(server.requests) == 1


def test_get_all_takes_what_is_published(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["weights", "get", "--all", "--quiet"]) == 0
    assert sorted(path.name for path in (tmp_path / "cache").glob("*.pt")) == ["second.pt", "tiny.pt"]
    assert capsys.readouterr().err == ""


def test_one_failure_does_not_stop_the_others(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = [refuse(404)]
    assert invoke(["weights", "get", "tiny", "secret", "second", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'cache' / 'second.pt'}\n"
    first, last = err.splitlines()
    assert first.startswith(f"depthstream: {server.url}: the server answered 404")
    assert last.startswith("depthstream: secret: the weights (secret.pt) were never published")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["get"], "name the models"),
        (["get", "tiny", "--all"], "name the models"),
        (["get", "tny"], "did you mean tiny"),
        (["verify", "tny"], "did you mean tiny"),
        (["list", "--weights-dir", "nowhere"], "nowhere: no such folder"),
        (["get", "tiny", "--weights-dir", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_bad_usage(server: Server, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["weights", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert server.requests == []


def test_get_fetches_a_damaged_file_again_unless_offline(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache" / "tiny.pt"
    path.parent.mkdir()
    path.write_bytes(b"damaged")
    monkeypatch.setenv("DEPTHSTREAM_OFFLINE", "1")
    assert invoke(["weights", "get", "tiny"]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert path.read_bytes() == b"damaged"
    monkeypatch.delenv("DEPTHSTREAM_OFFLINE")
    assert invoke(["weights", "get", "tiny"]) == 0
    assert f"note: {path} is damaged; downloading it again" in capsys.readouterr().err
    assert locate.sha256(path) == SHA256


def test_verify(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["weights", "get", "--all", "--quiet"]) == 0
    capsys.readouterr()
    cache = tmp_path / "cache"
    assert invoke(["weights", "verify"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"starter: ok: {PACKAGED}",
        f"tiny: ok: {cache / 'tiny.pt'}",
        f"second: unverified, no sha256 is known for this file (it has {SHA256}): {cache / 'second.pt'}",
    ]
    (cache / "tiny.pt").write_bytes(b"damaged")
    assert invoke(["weights", "verify"]) == 1
    assert f"instead of {SHA256}: {cache / 'tiny.pt'}" in capsys.readouterr().out
    assert invoke(["weights", "verify", "starter", "second"]) == 0
    assert invoke(["weights", "verify", "secret", "starter"]) == 1
    assert "secret: not here" in capsys.readouterr().out


def test_a_run_fetches_its_weights_once_and_says_so_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 48), "gray").save("photo.png")
    server.content = PACKAGED.read_bytes()
    weights = replace(STARTER.weights, file="two.safetensors", url=server.url, packaged=False)
    monkeypatch.setattr(catalog, "MODELS", (replace(STARTER, name="two", weights=weights, licence="CC-BY-NC-4.0"),))
    arguments = ["run", "photo.png", "-m", "two", "--overwrite", "--device", "cpu", "--input-size", "64"]

    assert invoke([*arguments, "--offline"]) == 1
    assert "downloads are disabled" in capsys.readouterr().err
    assert invoke([*arguments, "--set", "model.offline=true"]) == 1
    assert server.requests == []
    capsys.readouterr()

    server.faults = [refuse(404)]
    assert invoke(arguments) == 1
    assert "note: downloading two.safetensors to" in capsys.readouterr().err  # before, not after

    assert invoke([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    told = [line.removeprefix("note: ") for line in err.splitlines() if "two.safetensors" in line]
    licence = "two.safetensors: its licence, CC-BY-NC-4.0, does not allow commercial use"
    assert told == [licence, f"downloading two.safetensors to {tmp_path / 'cache'}"]
    report = json.loads(out)
    assert report["weights_sha256"] == STARTER.weights.sha256
    assert report["notes"][:2] == told

    (tmp_path / "cache").rename(tmp_path / "mine")
    assert invoke([*arguments, "--weights-dir", str(tmp_path / "mine"), "--offline"]) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "two.safetensors" in line] == [f"note: {licence}"]
    assert invoke([*arguments, "--weights-dir", str(tmp_path / "mine"), "--commercial-only"]) == 2
    assert "--commercial-only: the licence of two (CC-BY-NC-4.0) forbids commercial use" in capsys.readouterr().err
    assert len(server.requests) == 2


@pytest.mark.parametrize("arguments", [["weights", "--help"], ["weights", "list", "--json"]])
def test_looking_loads_nothing_heavy(arguments: list[str]) -> None:
    check = "import sys; heavy = {'torch', 'av', 'cv2'} & set(sys.modules); assert not heavy, heavy"
    code = f"from stream.cli.main import invoke; assert invoke({arguments}) == 0\n{check}"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def megabytes(done: int, file: str = "big.pt", total: int | None = 400) -> Transfer:
    return Transfer(file=file, done_bytes=done * 10**6, total_bytes=total and total * 10**6, resumed_bytes=100 * 10**6)


def test_a_download_in_one_line() -> None:
    assert describe_download(megabytes(200), elapsed_s=10) == "big.pt: 200 MB of 400 MB · 10.0 MB/s · 0:20 left"
    assert describe_download(megabytes(100), elapsed_s=0) == "big.pt: 100 MB of 400 MB"
    assert describe_download(megabytes(200, total=None), elapsed_s=10) == "big.pt: 200 MB · 10.0 MB/s"


def test_a_log_gets_a_line_of_a_download_now_and_then() -> None:
    now, out = [0.0], io.StringIO()
    with ProgressDisplay(stream=out, clock=lambda: now[0]) as display:
        for step in range(21):
            now[0] = step * PLAIN_EVERY_S / 10
            display.download(megabytes(100 + step))
    assert [line.split(" · ")[0] for line in out.getvalue().splitlines()] == [
        "big.pt: 110 MB of 400 MB",
        "big.pt: 120 MB of 400 MB",
    ]


def test_a_terminal_gets_one_bar_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    now, out = [0.0], Terminal()
    with ProgressDisplay(stream=out, clock=lambda: now[0]) as display:
        for file, total in (("big.pt", 900), ("next.pt", 400)):
            for done in (200, 300):
                now[0] += 1
                display.download(megabytes(done, file, total))
        assert display._picture is not None
        assert [(task.completed, task.total) for task in display._picture.tasks] == [(3e8, 4e8)]
        display.download(megabytes(399, "next.pt"))  # too soon after the last one
        display.download(megabytes(400, "next.pt"))
    assert "big.pt: 300 MB of 900 MB" in out.getvalue()
    assert "next.pt: 200 MB of 400 MB" in out.getvalue()
    assert "399 MB" not in out.getvalue()
    assert "next.pt: 400 MB of 400 MB" in out.getvalue()


def test_quiet_shows_no_download() -> None:
    out = Terminal()
    with ProgressDisplay(stream=out, clock=iter(range(99)).__next__, quiet=True) as display:
        display.download(megabytes(200))
        display.download(megabytes(300))
    assert out.getvalue() == ""

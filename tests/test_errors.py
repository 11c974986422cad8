"""No message shows a secret of a URL, however it was typed, and none acts on a terminal."""

import json
import logging
import traceback
from pathlib import Path

import pytest

import stream
from stream.cli.main import invoke
from stream.errors import StreamError, masked, printable, redacted, without_secrets
from stream.jobs.report import Report
from stream.media import av
from stream.notes import Notes
from tests.support.servers import Answer, HttpServer

SHOWN = {
    "clip.mp4": "clip.mp4",
    "rtsp://host:554/cam/1": "rtsp://host:554/cam/1",
    "rtsp://me:pw@host/cam": "rtsp://me:***@host/cam",
    "rtsp://me:p@w@host/cam": "rtsp://me:***@host/cam",
    "rtsp://me@host/cam": "rtsp://me@host/cam",
    "rtmp://u:pa/ss@host/app/key": "rtmp://***@host/app/key",
    "rtsp://u:12/34@host/cam": "rtsp://***@host/cam",
    "rtsp://u:p?w@host/cam": "rtsp://***",
    "rtsp://u:p#w@host/cam": "rtsp://***",
    "http://host/@name/clip.mp4": "http://host/@name/clip.mp4",
    "http://host/a.mp4?token=s": "http://host/a.mp4?***",
    "http://host/a.mp4?mail=a@b": "http://host/a.mp4?***",
    "http://host:80/a.mp4?token=a@b": "http://***",
    "http://host/a.mp4#token=s": "http://host/a.mp4#***",
    "RTSP://me%3Apw@host/cam": "RTSP://me:***@host/cam",
    "http://host/user=me_password=pw_channel=1.sdp": "http://host/user=***",
    "http://host/a;PWD=pw;b": "http://host/a;PWD=***;b",
    "http://host/token/s/live.m3u8": "http://host/token/***/live.m3u8",
    "http://host/http%3A%2F%2Fme%3Apw%40in%3Fkey%3Ds": "http://host/http%3A%2F%2F***",
    "http://host/http://me:pw@in/x": "http://***@in/x",
    "rtsp:/me:pw@host/cam": "rtsp:***",
    "12:30@home.mp4": "12:30@home.mp4",
}
TEXTS = (
    "cannot open 'rtsp://me:S3cret@host/cam': 401",
    "[Errno 1] 403: 'http://host/v.cgi?user=me&PWD=S3cret'; see http://host/#S3cret.",
    "rtsp:me:S3cret@host: no such file",
    "http%3A%2F%2Fme%3AS3cret%40host%2F",
    "rtsp://me:a S3cret@host/cam",
    "the server says Authorization: Basic S3cret",
    "hls+https://host/?next=http%3A%2F%2Fhost%2F%3Ftoken%3DS3cret",
    "http://host/session/S3cret/a http://host/Sig=S3cret/",
)


@pytest.mark.parametrize("url", SHOWN)
def test_what_is_shown_of_a_url(url: str) -> None:
    assert redacted(url) == SHOWN[url]
    assert redacted(SHOWN[url]) == SHOWN[url]


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_shows_a_secret(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever wrote it: it is masked where errors, notes and reports are made."""
    assert "S3cret" not in masked(text)
    assert masked(masked(text)) == masked(text)
    error = StreamError(text, where=text, allowed=text, hint=text)
    noted: list[str] = []
    notes = Notes(noted.append)
    with caplog.at_level(logging.INFO, "depthstream"):
        notes.add(text)
    report = Report.of_failure(text, source="rtsp://me:S3cret@host/?x=S3cret", model="", duration_s=0)
    shown = [str(error), error.reason, error.where, error.hint, *noted, *notes.said, caplog.text]
    assert "S3cret" not in json.dumps([*shown, report.to_dict()])


def test_ordinary_texts_stay_as_they_are() -> None:
    for text in ("note: a:b@c.mp4, 12:30.mp4 and C:\\x@y", "50 % of http://host/a.mp4: done.", "key=1.png", "a@b: c=d"):
        assert masked(text) == text


def test_long_texts_of_a_server_are_masked_in_time() -> None:
    """No expression backtracks: these took minutes in a draft."""
    for part in ("http:", "http://", "a:b ", "http%3a%2f%2f", "-", "apass", "http://a:b "):
        masked(f"http://h/{part * 2000}")


def test_no_way_out_shows_the_password_of_a_server_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the line, nor the traceback with the cause of FFmpeg, nor the report, nor the exception of the API."""
    monkeypatch.chdir(tmp_path)
    with HttpServer({"/a.mp4": Answer(b"", status=403)}) as server:
        address = server.url("/a.mp4").replace("://", "://me:S3cret@") + "?Pwd=S3cret"
        with pytest.raises(StreamError) as caught:
            stream.run(address, output="o.mp4", open_timeout_s=5)
        assert caught.value.__cause__ is not None
        texts = ["".join(traceback.format_exception(caught.value))]
        for arguments in (["--debug", "--report", "r.json"], ["--set", "capture.fps=3"], ["--max-frames", "-1"]):
            assert invoke(["run", address, "-o", "o.mp4", *arguments]) in (1, 2)
            texts.append("".join(capsys.readouterr()))
        assert invoke(["run", "x.png", "--serve-token", "S3cret"]) == 2
        assert invoke(["run", "x.png", "--serve-token=S3cret"]) == 2
        assert invoke(["run", f"ftp://me:S3cret@{address}"]) == 2
        assert invoke(["run", "x.png", "-o", address]) == 2
    texts += ["".join(capsys.readouterr()), (tmp_path / "r.json").read_text()]
    assert "127.0.0.1" in texts[0]
    assert [text for text in texts if "S3cret" in text] == []


def test_errors_of_other_libraries_lose_their_secrets_in_whatever_part_they_are() -> None:
    url = "rtsp://me:S3cret@host/"
    plain, by_ffmpeg = FileNotFoundError(2, "x", url), av.error.ConnectionRefusedError(111, "x", url, (16, "tcp", url))
    for error in (plain, by_ffmpeg, ValueError(f"bad {url}")):
        without_secrets(error)
        assert "S3cret" not in f"{error} {error!r} {getattr(error, 'filename', '')} {getattr(error, 'log', '')}"


def test_what_acts_on_a_terminal_is_escaped() -> None:
    assert printable("a\x1b[31m\r\n\t\x7f\x9b\x85") == r"a\x1b[31m\x0d\x0a\x09\x7f\x9b\x85"
    assert printable("\u202e\u2066\u200e\u061c\u2028\ufeff\U000e0041") == (
        r"\u202e\u2066\u200e\u061c\u2028\ufeff\U000e0041"
    )
    assert printable("caf\udce9 \ud83d") == r"caf\xe9 \ud83d"
    assert printable("a\n\x1bb", lines=True) == "a\n\\x1bb"
    for text in ("é 日本\u3000\xa0", "\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u0631"):
        assert printable(text) == text

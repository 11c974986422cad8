"""An image behind a URL is what the same image in a file is."""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.capture.base import Source
from stream.capture.open import open_source
from stream.capture.video import fetch
from stream.config import CaptureConfig
from stream.errors import SourceError, StreamError
from stream.frames import Frame, SourceKind
from stream.media import av
from tests.support import picture_files as files
from tests.support.servers import Answer, HttpServer

LIMITS = CaptureConfig(open_timeout_s=5, read_timeout_s=5)


@pytest.fixture(autouse=True)
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, which is empty in the end."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def read(text: str, options: CaptureConfig = LIMITS) -> tuple[Source, list[Frame]]:
    with closing(open_source(text, options=options)) as source:
        return source, list(source)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.heic", "a.avif", "a.jp2", "a.ico", "a.tga"])
def test_a_picture_behind_a_url_is_a_picture(tmp_path: Path, downloads: Path, name: str) -> None:
    path, stored = tmp_path / name, files.stored(files.scene(), 6)
    if name == "a.heic":
        files.save_heic(path, np.asarray(stored))
    else:
        files.save(path, stored, **({} if name in ("a.ico", "a.jp2", "a.tga") else {"exif": files.exif(6)}))
    of_file, (wanted,) = read(str(path))
    paths = [f"/{name}", *([] if name == "a.tga" else ["/snapshot.cgi"])]  # a TGA is known by its suffix alone
    with HttpServer({p: Answer(path.read_bytes(), kind="application/octet-stream") for p in paths}) as server:
        for url in map(server.url, paths):
            source, (frame,) = read(f"{url}?channel=1")
            assert (source.info.kind, source.info.is_live, source.info.name) == (
                SourceKind.STILLS, False, f"{url}?***",
            )  # fmt: skip
            assert (source.info.size, source.info.frame_count) == (of_file.info.size, 1)
            np.testing.assert_array_equal(frame.rgb, wanted.rgb)
            assert frame.name == (name if url.endswith(name) else "snapshot")
    assert list(downloads.iterdir()) == []


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_an_animation_behind_a_url_is_one_of_which_no_frame_is_dropped(
    tmp_path: Path, downloads: Path, suffix: str
) -> None:
    path = files.animated(tmp_path / f"a{suffix}", [files.scene(), files.scene()[::-1], files.scene()], [40, 80, 40])
    _, wanted = read(str(path))
    with HttpServer({"/a": Answer(path.read_bytes(), kind="image/gif")}) as server:
        source, frames = read(server.url("/a"))
    assert [frame.pts for frame in frames] == [frame.pts for frame in wanted]
    assert not source.info.is_live
    assert list(downloads.iterdir()) == []


def test_what_is_wrong_with_a_picture_names_its_url(downloads: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    cut = files.jpeg_bytes(noise)[:3000]
    answers = {
        "/cut.jpg": Answer(cut),
        "/text": Answer(b"hello, this is text"),
        "/raw.nef": Answer(b"IIU\0" + bytes(99)),
    }
    with HttpServer(answers) as server:
        for path, said in (("/cut.jpg", "truncated"), ("/text", "not a video stream"), ("/raw.nef", "RAW photo")):
            with pytest.raises(SourceError, match=said) as caught:
                read(server.url(path))
            assert str(caught.value).startswith(f"{server.url(path)}: ")
            assert str(downloads) not in str(caught.value)
        with pytest.raises(StreamError, match="--start"):
            read(server.url("/cut.jpg"), LIMITS.model_copy(update={"start": 1.0}))
    assert list(downloads.iterdir()) == []


def test_a_picture_that_does_not_arrive(downloads: Path) -> None:
    content = files.jpeg_bytes(files.scene())
    hurried = LIMITS.model_copy(update={"open_timeout_s": 0.3, "read_timeout_s": 0.3})
    stalling = Answer(content, sent=len(content) // 2, stall=True)
    with HttpServer({"/a.jpg": stalling}) as server, pytest.raises(SourceError, match=r"/a\.jpg: "):
        read(server.url("/a.jpg"), hurried)
    assert list(downloads.iterdir()) == []


def test_a_video_behind_a_url_is_fetched_by_nobody(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 40, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(files.scene(), format="rgb24")))
        container.mux(stream.encode(None))
    with HttpServer({"/clip.mp4": Answer(path.read_bytes(), ranges=True)}) as server:
        source, frames = read(server.url("/clip.mp4"))
    assert (source.info.kind, len(frames)) == (SourceKind.NETWORK, 5)


def test_what_the_log_of_a_download_says_names_its_url(downloads: Path) -> None:
    with HttpServer({"/a.jpg": Answer(files.jpeg_bytes(files.scene()))}) as server:
        source: Any = open_source(server.url("/a.jpg"), options=LIMITS)
        (file,) = source._source.info.files
        source._source.log.warnings.append(f"{file}: is cut off")
        assert (source.log.warnings, source.silence_limit_s) == ([f"{server.url('/a.jpg')}: is cut off"], None)
        source.close()
    assert list(downloads.iterdir()) == []


def test_jpegs_without_end_are_not_downloaded_for_ever(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_FIRST_LOOK", 1 << 14)
    content = files.jpeg_bytes(files.scene())
    answer = Answer(kind="image/jpeg", endless=lambda: iter(lambda: content * 8, b""))
    with HttpServer({"/cam.jpg": answer}) as server, pytest.raises(SourceError, match="a stream of JPEGs") as caught:
        read(server.url("/cam.jpg"))
    assert caught.value.hint == "add --live live"
    assert list(downloads.iterdir()) == []


def test_a_picture_that_drips_for_ever_is_ended(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_MOST_S", 0.0)
    answers = {"/a.jpg": Answer(files.jpeg_bytes(files.scene()))}
    with HttpServer(answers) as server, pytest.raises(SourceError, match="the image does not arrive within 0 minutes"):
        read(server.url("/a.jpg"))
    assert list(downloads.iterdir()) == []

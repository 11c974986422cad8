"""From text to source: every form of SOURCE, and every way to get it wrong."""

import os
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stream.capture import camera
from stream.capture.base import Source
from stream.capture.memory import Images
from stream.capture.open import open_images, open_source
from stream.capture.parse import SCHEMES, SourceForm, parse_source
from stream.config import CaptureConfig
from stream.errors import SourceError, SourceNotFoundError, StreamError, UsageError
from stream.frames import Frame, SourceKind
from stream.media import av
from tests.capture.test_camera import BGR, FakeCapture
from tests.support import picture_files as files


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with something of everything in it."""
    monkeypatch.chdir(tmp_path)
    scene = files.scene()
    (tmp_path / "photos/sub").mkdir(parents=True)
    files.save(tmp_path / "photos/img10.png", scene)
    files.save(tmp_path / "photos/img2.jpg", scene)
    files.save(tmp_path / "photos/sub/c.png", scene)
    files.save(tmp_path / "a.jpg", scene)
    files.save(tmp_path / "still.gif", Image.fromarray(scene))
    files.save(tmp_path / "still.webp", scene)
    (tmp_path / "nosuffix").write_bytes((tmp_path / "a.jpg").read_bytes())
    (tmp_path / "list.txt").write_text("photos/img10.png\na.jpg\n")
    moving = [np.full((20, 30, 3), value, np.uint8) for value in (10, 120, 240)]
    for name in ("moving.gif", "moving.webp", "moving.png"):
        files.animated(tmp_path / name, moving, [50, 100, 50])
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 40, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene, format="rgb24")))
        container.mux(stream.encode(None))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "form", "value"),
    [
        ("0", "camera", "0"),
        (" 2 ", "camera", "2"),
        ("cam:1", "camera", "1"),
        ("cam:/dev/video1", "camera", "/dev/video1"),
        ("/dev/video3", "camera", "/dev/video3"),
        ("/dev/v4l/by-id/usb-x", "camera", "/dev/v4l/by-id/usb-x"),
        ("pattern:testsrc2", "pattern", "testsrc2"),
        ("rtsp://u:p@host/x", "network", "rtsp://u:p@host/x"),
        ("https://host/live.m3u8", "network", "https://host/live.m3u8"),
        ("UDP://@:5000", "network", "udp://@:5000"),
        ("photos", "folder", "photos"),
        ("photos/", "folder", "photos/"),
        ("photos/*.jpg", "glob", "photos/*.jpg"),
        ("photos/[ab].jpg", "glob", "photos/[ab].jpg"),
        ("list.txt", "list", "list.txt"),
        ("a.jpg", "picture", "a.jpg"),
        ("missing.HEIC", "picture", "missing.HEIC"),
        ("clip.mp4", "video", "clip.mp4"),
        ("missing", "video", "missing"),
        ("file:///x/a%20b.mov", "video", "/x/a b.mov"),
        ("12.mp4", "video", "12.mp4"),
        ("C:\\videos\\a.mp4", "video", "C:\\videos\\a.mp4"),
        ("CAM:1", "camera", "1"),
        ("Pattern:testsrc2", "pattern", "testsrc2"),
        ("RTSP://u:P@Host/X", "network", "rtsp://u:P@Host/X"),
        ("hls+HTTPS://host/A", "network", "hls+https://host/A"),
        (" http://host/a.mp4\n", "network", "http://host/a.mp4"),
        ("clip.mp4 ", "video", "clip.mp4 "),
        (" ./a.jpg", "picture", " ./a.jpg"),
        ("FILE://localhost/x/a%20b.mov", "video", "/x/a b.mov"),
        ("file:clip.mp4", "video", "clip.mp4"),
        ("file:///x/caf%E9.mov", "video", os.fsdecode(b"/x/caf\xe9.mov")),
        ("~/a.mov", "video", os.path.expanduser("~/a.mov")),
        ("~nobody-here/a.mov", "video", "~nobody-here/a.mov"),
        ("./7", "video", "./7"),
    ],
)
def test_what_a_text_means(there: Path, text: str, form: str, value: str) -> None:
    assert there.exists()
    parsed = parse_source(text)
    assert (parsed.form, parsed.value) == (SourceForm(form), value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the source is empty"),
        ("ftp://host/a.mp4", r"unknown kind of URL ftp:// \(allowed: rtsp"),
        ("cam:front", "'front' is not a camera number"),
        ("99999999999999999999", "^9{20}: is not a camera's number"),
        ("cam:" + "9" * 5000, "^cam:9{36}…: is not a camera's number"),
        (" \t", "the source is empty"),
        ("rtsp:host/x", "is neither a file nor a URL; a URL begins with rtsp://"),
        ("file://host/x.mp4", "host would be another machine"),
        ("x" * 300 + "://", "unknown kind of URL"),
    ],
)
def test_texts_that_mean_nothing(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_source(text)


@pytest.mark.parametrize(
    ("name", "form", "noted"),
    [
        ("2024", "video", "2024 is read as the file of that name; for the camera, name cam:2024"),
        ("pattern:x.mp4", "video", "pattern:x.mp4 is read as the file of that name, not as a test pattern"),
        ("cam:0.mp4", "video", ""),
        ("rtsp:x.jpg", "picture", ""),
        ("file:x.mp4", "video", ""),
        ("photos/*.jpg", "picture", ""),
        ("a%20b.mp4", "video", ""),
        ("~x.png", "picture", ""),
        (" ", "", ""),
    ],
)
def test_what_exists_is_what_is_meant(there: Path, name: str, form: str, noted: str) -> None:
    (there / name).touch()
    if not form:
        with pytest.raises(UsageError, match="the source is empty"):
            parse_source(name)
        return
    parsed = parse_source(name)
    assert (parsed.form, parsed.value, parsed.note) == (SourceForm(form), name, noted)


def test_cam_always_means_the_camera(there: Path) -> None:
    (there / "cam:0").mkdir()
    parsed = parse_source("cam:0")
    assert (parsed.form, parsed.value) == (SourceForm.CAMERA, "0")
    assert parsed.note == "cam:0 is read as the camera; ./cam:0 is the folder of that name"
    assert parse_source("./cam:0").form is SourceForm.FOLDER


def test_the_folders_of_a_glob_may_look_like_one(there: Path) -> None:
    (there / "photos").rename(there / "trip [2024]")
    source, frames = opened_and_read("trip [2024]/*.png")
    assert (frames, source.info.names) == (1, ("img10.png",))
    assert opened_and_read("trip [2024]/**/*.png")[1] == 2


def test_a_list_may_hold_names_that_are_not_utf8(there: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg")
    (there / odd).write_bytes((there / "a.jpg").read_bytes())
    (there / "list.txt").write_bytes(b"caf\xe9.jpg\n~x.jpg\na.jpg\n")
    (there / "~x.jpg").write_bytes((there / "a.jpg").read_bytes())
    assert opened_and_read("list.txt")[0].info.names == (odd, "~x.jpg", "a.jpg")


def test_every_scheme_is_live_or_http() -> None:
    from stream.capture.video.network import LIVE_SCHEMES

    assert {scheme.removeprefix("hls+") for scheme in SCHEMES} == LIVE_SCHEMES | {"http", "https", "hls"}


def opened_and_read(text: str, **options: object) -> tuple[Source, int]:
    """Return the source and the number of frames it delivered."""
    with closing(open_source(text, options=CaptureConfig.model_validate(options))) as source:
        return source, sum(1 for _ in source)


@pytest.mark.parametrize(
    ("text", "kind", "count"),
    [
        ("photos", "stills", 2),
        ("photos/*.png", "stills", 1),
        ("photos/**/*", "stills", 3),
        ("list.txt", "stills", 2),
        ("a.jpg", "stills", 1),
        ("still.gif", "stills", 1),
        ("still.webp", "stills", 1),
        ("nosuffix", "stills", 1),
        ("moving.webp", "video", 3),
        ("moving.png", "video", 3),
        ("moving.gif", "video", 3),
        ("clip.mp4", "video", 5),
    ],
)
def test_what_is_opened(there: Path, text: str, kind: str, count: int) -> None:
    assert there.exists()
    source, frames = opened_and_read(text)
    assert (source.info.kind, frames, source.info.is_live) == (SourceKind(kind), count, False)
    assert source.info.name == text
    assert source.log.skipped == []


def test_names_are_relative_to_what_was_named(there: Path) -> None:
    assert opened_and_read("photos", recursive=True)[0].info.names == ("img2.jpg", "img10.png", "sub/c.png")
    assert opened_and_read("list.txt")[0].info.names == ("photos/img10.png", "a.jpg")
    assert opened_and_read(str(there / "a.jpg"))[0].info.names == ("a.jpg",)
    assert opened_and_read(f"file://{there}/a.jpg")[0].info.names == ("a.jpg",)


def test_options_reach_their_source(there: Path) -> None:
    assert there.exists()
    assert opened_and_read("photos", fps=24)[0].info.time_base == Fraction(1, 24)
    assert opened_and_read("photos", max_frames=1)[1] == 1
    assert opened_and_read("clip.mp4", max_frames=2)[1] == 2
    assert opened_and_read("moving.webp", end=0.1)[1] == 2
    with pytest.raises(SourceError, match="megapixels"):
        open_source("a.jpg", options=CaptureConfig(max_pixels=100))


def test_a_pattern_ends_when_told(there: Path) -> None:
    assert there.exists()
    source = open_source("pattern:testsrc2", options=CaptureConfig(end=0.05))
    with closing(source):
        assert source.info.kind is SourceKind.PATTERN
        assert source.info.size == (480, 640)
        assert sum(1 for _ in source) == 2


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCapture]:
    """OpenCV finds a camera at every index."""
    fake = FakeCapture()
    monkeypatch.setattr(camera.cv2, "VideoCapture", lambda *_args: fake)
    yield fake
    assert fake.releases == 1


def test_a_camera_is_asked_for_what_the_options_say(plugged_in: FakeCapture) -> None:
    options = {"camera_size": (1280, 720), "camera_fps": 15, "camera_fourcc": "MJPG", "max_frames": 2}
    source, frames = opened_and_read("cam:5", **options)
    assert (source.info.name, source.info.kind, frames) == ("cam:5", SourceKind.CAMERA, 2)
    assert "asked for 1280×720, 15 frames/s, MJPG" in source.info.notes[0]
    assert plugged_in.asked


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("udp://127.0.0.1:9", {"fps": 24}, "--fps: only applies to files"),
        ("photos", {"max_seconds": 1.0}, "--max-seconds: does not apply: a still image has no duration without --fps"),
        ("a.jpg", {"max_seconds": 1.0}, "--max-seconds: does not apply: a still image has no duration without --fps"),
        ("a.jpg", {"multiple_of": 128}, "--multiple-of 128: 64×40 has less than 128 pixels on a side"),
        ("clip.mp4", {"multiple_of": 48}, "--multiple-of 48: 64×40 has less than 48 pixels on a side"),
        ("pattern:testsrc2", {"fps": 24}, "--fps"),
        ("0", {"fps": 24}, "--fps"),
        ("0", {"start": 1.0}, "--start"),
        ("pattern:testsrc2", {"start": 1.0}, "--start"),
        ("photos", {"start": 1.0}, "--start: does not apply: a still image has no start time"),
        ("a.jpg", {"end": 3.0, "fps": 5, "max_seconds": 1.0}, "--end: does not apply: a still image has no end time"),
        ("photos", {"end": 3.0, "fps": 5, "max_seconds": 1.0}, "--end: does not apply: a still image has no end time"),
        ("udp://127.0.0.1:9", {"max_seconds": 1.0}, "--max-seconds: does not apply: a live stream has no duration"),
        ("udp://127.0.0.1:9", {"max_seconds": 1.0, "end": 3.0}, "--end: does not apply: a live stream has no end time"),
        ("a.jpg", {"end": 1.0}, "--end: does not apply: a still image has no end time"),
    ],
)
def test_options_that_make_no_sense(there: Path, text: str, options: dict[str, object], said: str) -> None:
    assert there.exists()
    with pytest.raises(UsageError, match=said) as caught:
        open_source(text, options=CaptureConfig.model_validate(options))
    assert caught.value.exit_code == 2


def test_an_end_is_blamed_for_images_in_memory_and_not_the_duration() -> None:
    options = CaptureConfig(fps=5, max_seconds=0.4, end=3)
    with pytest.raises(UsageError, match="--end: does not apply: a still image has no end time"):
        open_images(Images([np.zeros((20, 20, 3), np.uint8)] * 3), options=options)


def test_files_that_cannot_be_used(there: Path) -> None:
    (there / "empty.jpg").touch()
    (there / "empty.mp4").touch()
    (there / "renamed.jpg").write_bytes((there / "clip.mp4").read_bytes())
    (there / "text.png").write_text("hello")
    (there / "broken.jpg").write_bytes((there / "a.jpg").read_bytes()[:700])
    (there / "nothing").mkdir()
    (there / "nothing/x.md").touch()

    def refusal(text: str) -> tuple[int, str]:
        with pytest.raises(StreamError) as caught, closing(open_source(text)) as source:
            list(source)
        assert "\n" not in str(caught.value)
        return caught.value.exit_code, str(caught.value)

    assert refusal("a.jpgg") == (2, "a.jpgg: no such file or folder; did you mean a.jpg?")
    assert refusal("clp.mp4")[1].endswith("did you mean clip.mp4?")
    assert refusal("nowhere/a.jpg") == (
        2,
        "nowhere/a.jpg: no such file or folder; the folder nowhere does not exist either",
    )
    assert refusal("x" * 300)[0] == 1, "too long for the system"
    assert refusal("a\0.mp4")[0] == 2
    assert refusal("missing/*.jpg") == (2, "missing/*.jpg: no file matches")
    assert refusal("empty.jpg") == (1, "empty.jpg: the file is empty")
    assert refusal("empty.mp4") == (1, "empty.mp4: the file is empty")
    code, line = refusal("renamed.jpg")
    assert code == 1
    assert line.startswith("renamed.jpg: this is a video, not an image")
    assert line.endswith("; correct its suffix")
    assert refusal("text.png")[1].startswith("text.png: this is not an image in a supported format (allowed: JPEG")
    code, line = refusal("broken.jpg")
    assert code == 1
    assert line.startswith("broken.jpg: cannot be decoded")
    code, line = refusal("nothing")
    assert code == 2
    assert line.startswith("nothing: no images, 1 other file (allowed: .apng")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user")
def test_no_permission(there: Path) -> None:
    (there / "a.jpg").chmod(0)
    with pytest.raises(SourceError, match="permission"):
        open_source("a.jpg")


def test_a_file_that_the_system_says_is_not_readable(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert there.exists()
    monkeypatch.setattr("os.access", lambda *_args: False)
    with pytest.raises(SourceError, match="no permission to read the file"):
        open_source("clip.mp4")


def test_not_found_is_a_usage_error() -> None:
    assert issubclass(SourceNotFoundError, UsageError)


def test_a_mirrored_source_differs_in_nothing_but_left_and_right(tmp_path: Path) -> None:
    for name in "ab":
        files.save(tmp_path / f"{name}.png", files.scene())
    straight, mirrored = (open_source(str(tmp_path), options=CaptureConfig(mirror=mirror)) for mirror in (False, True))
    assert mirrored.info == straight.info
    for one, other in zip(straight, mirrored, strict=True):
        assert np.array_equal(one.rgb, other.rgb[:, ::-1])
        assert not np.array_equal(one.rgb, other.rgb)
        assert (one.index, one.pts, one.name) == (other.index, other.pts, other.name)
    assert mirrored.log == straight.log
    mirrored.interrupt()
    for source in (straight, mirrored):
        source.close()


def test_a_camera_that_is_plugged_in_again_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = FakeCapture(opened=False)
    captures = iter([FakeCapture([BGR] * 10), absent, FakeCapture([BGR] * 10)])
    monkeypatch.setattr(camera.cv2, "VideoCapture", lambda *_args: next(captures, absent))
    monkeypatch.setattr("stream.capture.reconnect.FIRST_DELAY_S", 0.01)
    source = open_source("cam:0", options=CaptureConfig(reconnect_for_s=1.0))
    assert source.silence_limit_s == CaptureConfig().read_timeout_s
    frames: list[Frame] = []
    with pytest.raises(SourceError, match=r"did not come back within 1 s; raise --reconnect-for"):
        frames.extend(_kept(source, frames))
    assert source.log.reconnects == 1
    assert len(frames) > 10, "of both times"
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert source.silence_limit_s is None, "while it is away"
    source.close()


def _kept(source: Source, frames: list[Frame]) -> list[Frame]:
    for frame in source:
        frames.append(frame)
    return []

"""Standard input, named pipes and `/dev/fd/N`: read once, whatever comes through them, and waited for."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stream.capture import pipe
from stream.capture.open import open_source
from stream.cli.main import invoke
from stream.config import CaptureConfig, Config
from stream.errors import SourceError, UsageError
from stream.frames import SourceKind
from stream.jobs.source import sample
from stream.media import av
from tests.support import forked
from tests.support.media_files import number_of, write_video

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in the file system")
FRAMES = 12


@contextmanager
def piped(data: bytes, *, parts: int = 7) -> Iterator[int]:
    """A pipe, by its reading descriptor, into which a thread writes `data` in `parts` pieces."""
    reading, writing = os.pipe()

    def write() -> None:
        step = len(data) // parts + 1
        with suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as file:
            for start in range(0, len(data), step):
                file.write(data[start : start + step])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join()


@contextmanager
def as_stdin(descriptor: int) -> Iterator[None]:
    """Makes `descriptor` the standard input of this process."""
    kept = os.dup(0)
    os.dup2(descriptor, 0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def numbers(source: str, options: CaptureConfig | None = None) -> list[int]:
    with closing(open_source(source, options=options)) as opened:
        return [number_of(frame.rgb) for frame in opened]


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.avi", "faststart.mp4", "fragmented.mp4", "a.flv"])
def test_every_frame_of_a_video_comes_through_a_pipe(tmp_path: Path, name: str) -> None:
    flags = {"faststart.mp4": "faststart", "fragmented.mp4": "frag_keyframe+empty_moov"}.get(name)
    clip = write_video(tmp_path / name, frames=FRAMES, mux_options={"movflags": flags} if flags else None)
    with piped(clip.read_bytes()) as descriptor, closing(open_source(f"/dev/fd/{descriptor}")) as source:
        assert (source.info.name, source.info.kind, source.info.is_live) == ("pipe", SourceKind.VIDEO, False)
        assert [number_of(frame.rgb) for frame in source] == list(range(FRAMES))
        assert source.log.warnings == []


def test_an_mp4_whose_index_comes_last_is_read_to_its_end_first(tmp_path: Path, notes: list[str]) -> None:
    clip = write_video(tmp_path / "a.mp4", frames=FRAMES)
    with piped(clip.read_bytes()) as descriptor, closing(open_source(f"/dev/fd/{descriptor}")) as source:
        (spooled,) = source.info.files
        assert spooled.exists()
        assert [number_of(frame.rgb) for frame in source] == list(range(FRAMES))
    assert not spooled.parent.exists()
    assert [note for note in notes if "index at the end" in note]


def test_a_part_of_a_pipe_is_read_by_dropping_what_comes_before(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mkv", frames=FRAMES, gop=3)
    with piped(clip.read_bytes()) as descriptor:
        assert numbers(f"/dev/fd/{descriptor}", CaptureConfig(start=0.2, end=0.36)) == [5, 6, 7, 8]


def test_a_pipe_can_be_live(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.ts", frames=FRAMES)
    with (
        piped(clip.read_bytes()) as descriptor,
        closing(open_source(f"/dev/fd/{descriptor}", options=CaptureConfig(live="live"))) as source,
    ):
        assert source.info.is_live
        assert [number_of(frame.rgb) for frame in source][-1] == FRAMES - 1


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_picture_comes_through_a_pipe(tmp_path: Path, suffix: str) -> None:
    picture = tmp_path / f"a{suffix}"
    Image.fromarray(np.full((40, 30, 3), 90, np.uint8)).save(picture)
    with piped(picture.read_bytes()) as descriptor, closing(open_source(f"/dev/fd/{descriptor}")) as source:
        assert (source.info.name, source.info.kind, source.info.names) == ("pipe", SourceKind.STILLS, ("pipe",))
        (frame,) = source
    assert frame.size == (40, 30)
    assert np.abs(frame.rgb.astype(int) - 90).max() <= 2


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_one_after_the_other_are_a_video(tmp_path: Path, suffix: str) -> None:
    data = b""
    for value in (20, 120, 220):
        Image.fromarray(np.full((40, 30, 3), value, np.uint8)).save(tmp_path / f"a{suffix}")
        data += (tmp_path / f"a{suffix}").read_bytes()
    with piped(data) as descriptor, closing(open_source(f"/dev/fd/{descriptor}")) as source:
        assert source.info.kind is SourceKind.VIDEO
        assert [round(float(frame.rgb.mean()) / 20) for frame in source] == [1, 6, 11]


def test_a_photo_of_several_pictures_is_one_picture(tmp_path: Path) -> None:
    picture = tmp_path / "a.mpo"
    images = [Image.new("RGB", (30, 40), colour) for colour in ("red", "blue")]
    images[0].save(picture, save_all=True, append_images=images[1:])
    with piped(picture.read_bytes()) as descriptor, closing(open_source(f"/dev/fd/{descriptor}")) as source:
        assert source.info.kind is SourceKind.STILLS
        assert len(list(source)) == 1


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "pipe: ended without sending anything"),
        (b"no video at all\n" * 50, "pipe: is not a video in a supported format"),
        (b"\xff\xd8\xff\xe0 and nothing more", "pipe: .*"),
    ],
)
def test_what_is_no_video_is_a_one_line_error(data: bytes, says: str) -> None:
    with piped(data) as descriptor, pytest.raises(SourceError, match=says) as refusal:
        open_source(f"/dev/fd/{descriptor}")
    assert "depthstream-" not in str(refusal.value), "the temporary file is not the user's"


def test_a_terminal_is_refused() -> None:
    controller, terminal = os.openpty()
    try:
        says = "stdin: is a terminal, not a video; pipe a video into it"
        with pytest.raises(UsageError, match=says), as_stdin(terminal):
            open_source("-")
        with pytest.raises(UsageError, match="is a terminal"):
            open_source(os.ttyname(terminal))
    finally:
        os.close(controller)
        os.close(terminal)


def test_a_video_piped_into_the_command_gets_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip = write_video(tmp_path / "a.mkv", frames=FRAMES)
    with piped(clip.read_bytes()) as descriptor, as_stdin(descriptor):
        assert invoke(["run", "-", "--quiet", "--input-size", "64"]) == 0
    with av.open(str(tmp_path / "stdin_depth.mp4")) as container:
        assert len(list(container.decode(video=0))) == FRAMES


def test_standard_input_from_a_file_is_that_file(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", frames=FRAMES)
    with clip.open("rb") as file, as_stdin(file.fileno()):
        for _ in range(2):
            assert numbers("-") == list(range(FRAMES))


def test_a_named_pipe_is_waited_for_which_is_said(
    tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "a.mkv", frames=FRAMES)
    fifo = tmp_path / "camera.jpg"  # the suffix of a pipe says nothing about what comes through it
    os.mkfifo(fifo)

    def write() -> None:
        while not notes:
            time.sleep(0.01)
        fifo.write_bytes(clip.read_bytes())

    writer = threading.Thread(target=write)
    writer.start()
    monkeypatch.setattr("stream.capture.open._PATIENCE_S", 0.05)
    assert numbers(str(fifo)) == list(range(FRAMES))
    writer.join()
    assert notes == [f"{fifo}: waiting for a program to write to it"]


def test_interrupt_ends_the_wait_for_a_writer_that_has_stopped_writing(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.ts", frames=40, gop=5).read_bytes()
    reading, writing = os.pipe()
    os.write(writing, data)
    try:
        with closing(open_source(f"/dev/fd/{reading}", options=CaptureConfig(live="live"))) as source:
            frames = iter(source)
            assert next(frames)
            assert next(frames)
            threading.Timer(0.2, source.interrupt).start()
            assert all(list(frames))
    finally:
        os.close(writing)
        os.close(reading)


def test_ctrl_c_ends_the_wait_for_a_writer(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading, writing = os.pipe()
    process = forked.start(["run", str(fifo), "-o", str(tmp_path / "x.mp4")], stderr=writing)
    os.close(writing)
    with open(reading) as said:
        for line in said:
            if "waiting for a program to write to it" in line:
                os.kill(process.pid or 0, signal.SIGINT)
    assert line == "depthstream: interrupted\n"
    assert forked.ended(process) == 130
    assert list(tmp_path.iterdir()) == [fifo]


def test_what_needs_the_source_twice_refuses_a_pipe() -> None:
    with piped(b"") as descriptor, pytest.raises(UsageError, match="a pipe can be read only once; save it to a file"):
        sample(Config(source=f"/dev/fd/{descriptor}"), 4)


def jpegs(folder: Path, count: int, padding: int) -> bytes:
    path = folder / "a.jpg"
    Image.fromarray(np.full((40, 30, 3), 120, np.uint8)).save(path)
    return (path.read_bytes() + bytes(padding)) * count


@pytest.mark.parametrize("padding", [100, 10_000])
def test_jpegs_with_padding_between_them_are_a_video(tmp_path: Path, padding: int) -> None:
    with piped(jpegs(tmp_path, 5, padding)) as descriptor, closing(open_source(f"/dev/fd/{descriptor}")) as source:
        assert source.info.kind is SourceKind.VIDEO
        assert len(list(source)) == 5


def test_what_begins_like_a_picture_is_not_kept_in_memory_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "_LARGEST_PICTURE", 1 << 17)
    data = jpegs(tmp_path, 1, 1 << 20)
    with piped(data) as descriptor, pytest.raises(SourceError, match="neither ends nor goes on with another one"):
        open_source(f"/dev/fd/{descriptor}")


@pytest.mark.parametrize("pictures", [0, 3])
def test_a_packet_may_not_take_as_much_as_it_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: int
) -> None:
    monkeypatch.setattr(pipe, "_LEAST_PACKET", 1 << 20)
    monkeypatch.setattr(pipe, "_PACKET_SHARE", 0)
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    parts = [(tmp_path / "a.jpg").read_bytes()] * pictures + [b"\xff\xd8" + bytes(3 << 20)]
    sizes = [len(part) for part in parts[:-1]] + [2 * 10**9]
    heads = [b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % size for size in sizes]
    data = b"".join(head + part + b"\r\n" for head, part in zip(heads, parts, strict=True))
    says = "more than 1 MiB came that hold no whole picture"
    with piped(data) as descriptor:
        if not pictures:
            with pytest.raises(SourceError, match=f"pipe: .*{says}"):
                open_source(f"/dev/fd/{descriptor}")
            return
        with closing(open_source(f"/dev/fd/{descriptor}")) as source:
            assert len(list(source)) == pictures
            assert source.log.warnings == [f"pipe: cannot be read any further: {says}"]


def test_a_long_stream_of_small_packets_is_no_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_LEAST_PACKET", 1 << 17)
    monkeypatch.setattr(pipe, "_PACKET_SHARE", 0)
    clip = write_video(tmp_path / "a.nut", frames=100, codec="rawvideo")
    assert clip.stat().st_size > 3 << 17
    with piped(clip.read_bytes()) as descriptor, closing(open_source(f"/dev/fd/{descriptor}")) as source:
        assert len(list(source)) == 100


def test_a_descriptor_may_have_any_number() -> None:
    fcntl = pytest.importorskip("fcntl")
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("no descriptor from 1024 is allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    reading, writing = os.pipe()
    high = fcntl.fcntl(reading, fcntl.F_DUPFD, 1500)
    try:
        os.write(writing, b"x")
        assert pipe.PipeReader("pipe", high).read(1) == b"x"
    finally:
        for descriptor in (reading, writing, high):
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

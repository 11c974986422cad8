"""Image sinks: names, pixels, and what is left when something fails."""

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stream.errors import ConfigError, OutputError, SinkError
from stream.frames import Depth, DepthKind, Frame, RgbImage, SourceInfo, SourceKind
from stream.sinks.background import BackgroundWriter
from stream.sinks.images import ImageSink
from tests.support.full_disk import fill_disk

SIZE = (30, 41)
INFO = SourceInfo(
    name="t", size=SIZE, is_live=False, time_base=Fraction(1, 25), rate=None, frame_count=None, kind=SourceKind.STILLS
)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> RgbImage:
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([x * 5 % 256, y * 7 % 256, (x + y + seed) % 256], -1).astype(np.uint8)


def write(sink: ImageSink, image: RgbImage, *, name: str = "", index: int = 0) -> bool:
    frame = Frame(index=index, pts=index, time_base=Fraction(1, 25), captured_at=0.0, rgb=image.copy(), name=name)
    values = np.zeros(image.shape[:2], np.float32)
    return sink.write(frame, Depth(values=values, kind=DepthKind.RELATIVE_DISPARITY, index=index), image)


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_folder_of_stills(tmp_path: Path) -> None:
    names = ["a.jpg", "a.heic", "sub/a.jpg", "b.png"]
    sink = ImageSink(tmp_path / "deep" / "out", names=names)
    sink.open(INFO, SIZE)
    assert sink.is_lossless
    for i, name in enumerate(names):
        assert write(sink, picture(i, (30 + i, 41)), name=name, index=i)
    sink.finish()
    assert tree(tmp_path / "deep" / "out") == ["a.heic.png", "a.jpg.png", "b.png", "sub/a.png"]
    assert sink.outputs == [str(tmp_path / "deep" / "out")]
    for i, file in enumerate(["a.jpg.png", "a.heic.png", "sub/a.png", "b.png"]):
        with Image.open(tmp_path / "deep" / "out" / file) as read:
            assert np.array_equal(np.asarray(read), picture(i, (30 + i, 41)))


def test_video_frames_are_numbered_and_the_image_buffer_may_be_reused(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "out")
    sink.open(INFO, SIZE)
    buffer = picture()
    for i in (0, 1, 5):
        buffer[:] = picture(i)
        write(sink, buffer, index=i)
    buffer[:] = 0
    sink.finish()
    assert tree(tmp_path) == ["out/000000.png", "out/000001.png", "out/000005.png"]
    for i in (0, 1, 5):
        with Image.open(tmp_path / f"out/{i:06d}.png") as read:
            assert np.array_equal(np.asarray(read), picture(i))


@pytest.mark.parametrize(("format", "kind"), [("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_formats(tmp_path: Path, format: str, kind: str) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    noisy = np.asarray(Image.fromarray(noisy).resize((256, 256)))
    sink = ImageSink(tmp_path, format=format)
    sink.open(INFO, (256, 256))
    write(sink, noisy, name="a.tiff")
    sink.finish()
    with Image.open(tmp_path / f"a.{format}") as read:
        assert read.format == kind
        error = np.abs(np.asarray(read.convert("RGB")).astype(int) - noisy).mean()
    assert error < 6  # swapped channels would give 50
    assert (error == 0) == (format == "png")


@pytest.mark.parametrize("name", ["one.png", "one.JPG", "one.jpeg", "one.webp"])
def test_single_picture(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    sink = ImageSink(path, format="png")
    sink.open(INFO, SIZE)
    write(sink, picture(), name="a.jpg")
    with pytest.raises(SinkError, match="several frames"):
        write(sink, picture(), name="b.jpg", index=1)
    assert not path.exists()
    sink.finish()
    assert tree(tmp_path) == [f"new/{name}"]
    assert sink.outputs == [str(path)]
    with Image.open(path) as read:
        assert read.format == {"png": "PNG", "webp": "WEBP"}.get(path.suffix.lower()[1:], "JPEG")
        assert read.size == SIZE[::-1]


def test_single_picture_of_a_failed_run_is_kept_as_partial(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "one.png")
    sink.open(INFO, SIZE)
    write(sink, picture())
    sink.keep_partial("the disk caught fire")
    assert tree(tmp_path) == ["one.partial.png"]
    with Image.open(tmp_path / "one.partial.png") as read:
        assert np.array_equal(np.asarray(read), picture())


def test_single_picture_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite"):
        ImageSink(path).open(INFO, SIZE)
    assert path.read_bytes() == b"mine"
    sink = ImageSink(path, overwrite=True)
    sink.open(INFO, SIZE)
    write(sink, picture())
    assert path.read_bytes() == b"mine"
    sink.finish()
    assert path.read_bytes() != b"mine"
    late = ImageSink(tmp_path / "two.png")
    late.open(INFO, SIZE)
    write(late, picture())
    (tmp_path / "two.png").write_bytes(b"mine too")
    with pytest.raises(SinkError, match="created by another program"):
        late.finish()
    assert (tmp_path / "two.png").read_bytes() == b"mine too"


def test_abort_leaves_nothing_it_made_and_all_it_found(tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    for path in (tmp_path / "x" / "y", found, found / "z", tmp_path / "p" / "one.png"):
        sink = ImageSink(path)
        sink.open(INFO, SIZE)
        sink.abort(RuntimeError())
        sink.abort(RuntimeError())
        assert sink.outputs == []
    assert [p.name for p in tmp_path.rglob("*")] == ["found"]


def test_abort_after_a_single_write_removes_its_partial(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "new" / "one.png")
    sink.open(INFO, SIZE)
    write(sink, picture())
    sink.abort(RuntimeError())
    assert list(tmp_path.iterdir()) == []


def test_abort_without_open() -> None:
    ImageSink(Path("never")).abort(RuntimeError())


def test_run_without_frames_leaves_no_empty_folder(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path / "out")
    sink.open(INFO, SIZE)
    sink.finish()
    assert list(tmp_path.iterdir()) == []


def test_existing_files_of_others_are_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    sink = ImageSink(tmp_path)
    sink.open(INFO, SIZE)
    with pytest.raises(SinkError, match="--overwrite"):
        write(sink, picture(), name="a.jpg")
    sink.abort(RuntimeError())
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    sink = ImageSink(tmp_path, overwrite=True)
    sink.open(INFO, SIZE)
    write(sink, picture(), name="a.jpg")
    sink.finish()
    with Image.open(tmp_path / "a.png") as read:
        assert np.array_equal(np.asarray(read), picture())


def test_full_disk_surfaces_and_leaves_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, tmp_path / ".000001.png.partial")
    sink = ImageSink(tmp_path)
    sink.open(INFO, SIZE)
    with pytest.raises(SinkError, match="No space left") as caught:  # noqa: PT012 - some later write
        for i in range(100):
            write(sink, picture(), index=i)
    assert isinstance(caught.value.__cause__, OSError)
    assert "free some space" in str(caught.value)
    assert "000001.png" in str(caught.value)
    with pytest.raises(SinkError, match="No space left"):
        write(sink, picture(), index=200)
    sink.keep_partial("disk full")  # the error is known: not raised again
    assert tree(tmp_path) == ["000000.png"]


def test_error_of_the_last_file_surfaces_at_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, tmp_path / ".000000.png.partial")
    sink = ImageSink(tmp_path)
    sink.open(INFO, SIZE)
    write(sink, picture())
    with pytest.raises(SinkError, match="No space left"):
        sink.finish()
    assert tree(tmp_path) == []


def test_full_disk_with_a_single_picture_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, tmp_path / ".one.partial.png.partial")
    sink = ImageSink(tmp_path / "one.png", overwrite=True)
    sink.open(INFO, SIZE)
    write(sink, picture())
    with pytest.raises(SinkError, match="No space left"):
        sink.finish()
    sink.keep_partial("after all")
    assert list(tmp_path.iterdir()) == []


def test_bad_places(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(OutputError, match="not a folder"):
        ImageSink(tmp_path / "file" / "out").open(INFO, SIZE)
    with pytest.raises(OutputError, match="is a folder"):
        ImageSink(tmp_path / "dir.png").open(INFO, SIZE)
    with pytest.raises(OutputError, match="cannot be created"):
        ImageSink(Path("/proc/depthstream/out")).open(INFO, SIZE)
    with pytest.raises(OutputError, match=r"\.webp"):
        ImageSink(tmp_path / "a.heic")


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed: png, jpg, webp"):
        ImageSink(tmp_path, format="tiff")


def test_too_large_for_the_format(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path, format="webp")
    sink.open(INFO, SIZE)
    with pytest.raises(SinkError, match="16383"):
        write(sink, picture(size=(1, 16384)))
    write(sink, picture(size=(1, 16383)))
    sink.finish()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_thin_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    sink = ImageSink(tmp_path)
    sink.open(INFO, size)
    write(sink, picture(size=size))
    sink.finish()
    with Image.open(tmp_path / "000000.png") as read:
        assert np.array_equal(np.asarray(read), picture(size=size))


def test_names_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    sink = ImageSink(tmp_path)
    sink.open(INFO, SIZE)
    write(sink, picture(), name="ü" * 125 + ".jpg")
    sink.finish()
    assert tree(tmp_path) == ["ü" * 125 + ".png"]


class Gate:
    """A job that waits until it is let go."""

    def __init__(self) -> None:
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.started.set()
        assert self.go.wait(10)


def test_writer_is_bounded_in_number_and_bytes() -> None:
    for size_bytes, expected in ((1, 4), (40 << 20, 3), (1 << 30, 1)):
        writer, gate, queued = BackgroundWriter(), Gate(), threading.Semaphore(0)
        done: list[int] = []

        def fill(
            writer: BackgroundWriter = writer,
            gate: Gate = gate,
            done: list[int] = done,
            queued: threading.Semaphore = queued,
            size_bytes: int = size_bytes,
        ) -> None:
            writer.submit(gate, size_bytes)
            queued.release()
            for i in range(8):
                writer.submit(lambda i=i: done.append(i), size_bytes)  # type: ignore[misc]
                queued.release()

        feeder = threading.Thread(target=fill)
        feeder.start()
        assert gate.started.wait(10)
        for _ in range(expected):
            assert queued.acquire(timeout=10)
        assert not queued.acquire(timeout=0.05)
        gate.go.set()
        feeder.join(10)
        writer.finish()
        assert done == list(range(8))


def test_writer_cancel_drops_the_queue() -> None:
    writer, gate = BackgroundWriter(), Gate()
    done: list[int] = []
    writer.submit(gate, 1)
    writer.submit(lambda: done.append(1), 1)
    assert gate.started.wait(10)
    canceller = threading.Thread(target=writer.cancel)
    canceller.start()
    gate.go.set()
    canceller.join(10)
    assert not canceller.is_alive()
    writer.finish()


def test_writer_error_wakes_a_blocked_submit() -> None:
    writer, gate = BackgroundWriter(), Gate()

    def fail() -> None:
        gate()
        raise ValueError("first")

    caught: list[BaseException] = []

    def fill() -> None:
        try:
            for _ in range(10):
                writer.submit(fail, 1)
        except ValueError as error:
            caught.append(error)

    feeder = threading.Thread(target=fill)
    feeder.start()
    assert gate.started.wait(10)
    gate.go.set()
    feeder.join(10)
    assert [str(e) for e in caught] == ["first"]
    writer.finish()

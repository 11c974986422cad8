"""Small files that declare much: each is refused by name, or read, within the budget for memory."""

import re
import struct
import subprocess
import sys
import zlib
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stream.capture.limits import Limits
from stream.capture.open import open_source
from stream.capture.stills.find import find_pictures
from stream.capture.stills.picture import open_picture
from stream.capture.video.file import VideoSource
from stream.config import CaptureConfig, parse_bytes
from stream.errors import ConfigError, SourceError
from stream.media import av
from stream.pipeline.memory import least_bytes
from tests.support.media_files import write_video

GB = 10**9
PEAK = """
def peak():  # of this program alone: what getrusage tells counts the program that has started it
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
"""
READ = (
    PEAK
    + """
import sys
from stream.capture.open import open_source
from stream.config import CaptureConfig
from stream.errors import StreamError
try:
    source = open_source(sys.argv[1], options=CaptureConfig(max_memory=sys.argv[2], max_frames=5))
    said = f"read {sum(1 for _ in source)} {source.log.warnings}"
except StreamError as error:
    said = f"refused {error}"
print(peak(), said)
"""
)


def peak_of_reading(path: Path, max_memory: str) -> tuple[int, str]:
    """The peak memory of a process that reads five frames, in bytes, and what it says."""
    command = [sys.executable, "-c", READ, str(path), max_memory]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, _, said = done.stdout.strip().partition(" ")
    return int(peak), said


def gif(path: Path, width: int, height: int, frames: int) -> Path:
    one = b"\x21\xf9\x04\0\1\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    path.write_bytes(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + one * frames + b";")
    return path


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """A black image; the file ends after so many rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    pixels = (
        b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(height if rows is None else rows))
        + packer.flush()
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def growing_video(path: Path, width: int, height: int, rows: int | None = None) -> Path:
    """A video of three small frames, then two of another size."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        frames = [png(64, 48)] * 3 + [png(width, height, rows)] * 2
        for number, content in enumerate(frames):
            packet = av.Packet(content)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            container.mux(packet)
    return path


def tiled_tiff(path: Path, tile: int) -> Path:
    """16×16 pixels in one tile that is said to be much larger."""
    tags = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, tile),
        (323, tile),
        (324, 200),
        (325, 9),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + zlib.compress(b"\0"))
    return path


def icon(path: Path, inside: bytes) -> Path:
    """An icon whose directory says 16×16."""
    path.write_bytes(struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22) + inside)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mov", "a.tif", "a.ico", "a.png"])
def test_a_small_file_that_declares_much_stays_within_the_budget(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.gif":
        gif(path, 13_000, 13_000, 40)
    elif name == "a.webp":
        Image.new("RGB", (4000, 4000)).save(path, lossless=True, method=0)
    elif name == "a.mov":
        growing_video(path, 12_000, 12_000, rows=10)
    elif name == "a.tif":
        tiled_tiff(path, 40_000)
    else:
        content = png(12_000, 12_000, rows=10)
        icon(path, content) if name == "a.ico" else path.write_bytes(content)
    peak, said = peak_of_reading(path, "1G")
    assert said.startswith("read 3 ['" if name == "a.mov" else "refused")
    assert str(path) in said
    assert peak < 0.4 * GB


OTHERS = ("png", "webp", "avif", "tiff", "jp2")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["a.jpg", *(pytest.param(f"a.{kind}", marks=pytest.mark.slow) for kind in OTHERS)])
def test_decoding_takes_no_more_than_estimated(name: str, tmp_path: Path) -> None:
    Image.radial_gradient("L").resize((3000, 2000)).convert("RGB").save(tmp_path / name)
    with open_picture(tmp_path / name, limits=Limits(max_memory=100 * GB)) as picture:
        needed = picture.decoding_bytes
    assert needed > 7 * 3000 * 2000
    code = f"{PEAK}\nimport sys, pathlib; from stream.capture.stills.picture import open_picture as o\n"
    code += "before = peak(); o(pathlib.Path(sys.argv[1])).decode(); print(peak() - before)"
    command = [sys.executable, "-c", code, str(tmp_path / name)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) <= needed


def test_a_video_that_grows_ends_in_order_and_names_itself(tmp_path: Path) -> None:
    path = growing_video(tmp_path / "a.mov", 1000, 1000)
    with closing(VideoSource(path, limits=Limits(max_pixels=900_000))) as source:
        assert [frame.size for frame in source] == [(48, 64)] * 3
        (warning,) = source.log.warnings
        assert re.search(r"a\.mov: ends at frame 3: a frame .*up to 0\.9 megapixels.*--max-pixels", warning)
    with closing(VideoSource(path, limits=Limits(max_pixels=990_000))) as source:  # the decoder's limit is less strict
        assert len(list(source)) == 3
        assert "ends at frame 3: frame 3 has 1000×1000 pixels" in source.log.warnings[0]
    with pytest.raises(SourceError, match="megapixels"):
        VideoSource(path, limits=Limits(max_pixels=1000))
    with closing(VideoSource(path, limits=Limits(max_pixels=1_000_000))) as source:
        assert [frame.size for frame in source] == [(48, 64)] * 3 + [(1000, 1000)] * 2


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg2video", ".mpg"), ("libvpx-vp9", ".webm")])
def test_a_decoder_that_tells_no_size_ends_the_video_as_well(codec: str, suffix: str, tmp_path: Path) -> None:
    small = write_video(tmp_path / f"small{suffix}", codec=codec, frames=10)
    large = write_video(tmp_path / f"large{suffix}", codec=codec, frames=6, size_hw=(720, 1280))
    path, number = tmp_path / f"a{suffix}", 0
    with av.open(str(path), "w") as container, av.open(str(small)) as one, av.open(str(large)) as other:
        stream = container.add_stream_from_template(one.streams.video[0])
        for packet in (*one.demux(video=0), *other.demux(video=0)):
            if packet.size:
                packet.stream, packet.pts, packet.dts = stream, number, number
                packet.time_base, number = Fraction(1, 25), number + 1
                container.mux(packet)
    with closing(VideoSource(path, limits=Limits(max_pixels=500_000))) as source:
        count = len(list(source))
        assert 9 <= count <= 10
        assert f"ends at frame {count}: a frame is too large, or its stated size is damaged" in source.log.warnings[0]


def test_a_folder_with_one_bomb_goes_on(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    Image.new("RGB", (4000, 4000)).save(tmp_path / "b.webp", lossless=True, method=0)
    Image.new("RGB", (64, 48)).save(tmp_path / "c.png")
    source = open_source(str(tmp_path), options=CaptureConfig(max_memory=GB))
    assert [frame.name for frame in source] == ["a.png", "c.png"]
    assert [(one.name, one.reason[:9]) for one in source.log.skipped] == [("b.webp", "4000×4000")]


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_an_animation_takes_more_than_its_first_frame(name: str, tmp_path: Path) -> None:
    size = (3000, 3000)  # a still of this size may be read
    one, other = (Image.new("P", size, number) for number in (1, 2))
    one.save(tmp_path / "one.png")
    one.save(tmp_path / name, save_all=True, append_images=[other, one])
    options = CaptureConfig(max_memory=GB)
    open_source(str(tmp_path / "one.png"), options=options).close()
    with pytest.raises(SourceError, match="3000×3000 may take"):
        open_source(str(tmp_path / name), options=options)


@pytest.mark.parametrize("budget", [{"max_memory": 1}, {}])
def test_nothing_free_is_a_clear_error(budget: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.machine.free_memory_bytes", lambda: 0)
    with pytest.raises(SourceError, match=r"64×48 may take 10 MB .*up to 0 MB\); set --max-memory 1G if") as refusal:
        Limits(**budget).check_picture((48, 64), 10_000_000, "a.png")
    assert refusal.value.where == "a.png"
    assert "up to 0 megapixels" in str(Limits(**budget).too_large((48, 64), Limits(**budget).frame_pixels, "a.mp4", 0))


@pytest.mark.parametrize(
    ("decoding_bytes", "says"),
    [
        (100_000_000, r"may take 0\.75 GB .*up to 0\.3 GB.*--max-memory 1\.6G"),
        (GB, r"may take 1 GB .*up to 0\.18 GB.*--max-memory 2\.9G"),
    ],
)
def test_the_limit_that_is_exceeded_is_named_and_the_budget_that_is_enough(decoding_bytes: int, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        Limits(max_memory=GB).check_picture((5000, 6000), decoding_bytes, "a.png")
    enough = Limits(max_memory=16 * GB // 10 if decoding_bytes < GB else 29 * GB // 10)
    enough.check_picture((5000, 6000), decoding_bytes, "a.png")


def test_the_limit_that_is_named_does_not_depend_on_rounding() -> None:
    for budget in range(GB, 2 * GB, 1_234_567):
        limits = Limits(max_memory=budget)
        with pytest.raises(SourceError, match="may take 2 GB"):
            limits.check_picture((1000, 1000), 2 * GB, "a.png")


def test_a_large_machine_reads_larger_pictures_and_half_a_laptop_8k(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.machine.free_memory_bytes", lambda: 50 * GB)
    assert Limits().picture_bytes > 3 * GB
    monkeypatch.setattr("stream.machine.free_memory_bytes", lambda: 8 * GB)
    assert Limits().picture_bytes <= 1.9 * GB
    size = 4320, 7680
    assert Limits().frame_pixels > size[0] * size[1]
    assert least_bytes(size, size, encodes=True) < Limits().room
    monkeypatch.setattr("stream.machine.free_memory_bytes", lambda: 5.5 * GB)  # where nothing is encoded
    assert Limits().frame_pixels > size[0] * size[1]
    assert least_bytes(size, size, encodes=False) < Limits().room


def test_the_default_limits_are_stated() -> None:
    assert CaptureConfig().max_pixels <= 2 * 89_478_485  # what Pillow refuses
    assert Limits(max_memory=2 * GB).picture_bytes < 2 * GB
    assert Limits().picture_bytes <= 1.9 * GB
    assert Limits(max_memory=2 * GB).frame_pixels < Limits(max_memory=20 * GB).frame_pixels


SIZES = {"4G": 4 * GB, "1.5GB": 3 * GB // 2, "512MiB": 2**29, "2000000000": 2 * GB, "2 gb": 2 * GB}


@pytest.mark.parametrize(("text", "count"), SIZES.items())
def test_a_size_is_read_as_people_write_it(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "G", "4X", "-1G", "4 GG", "٤G", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        parse_bytes(text)


def test_a_budget_below_the_program_is_refused() -> None:
    from stream.config import Config

    with pytest.raises(ConfigError, match="1G or more"):
        Config.model_validate({"capture": {"max_memory": "10M"}})


def test_a_list_that_repeats_itself_is_short_and_one_that_does_not_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stream.capture.stills import find

    listing = tmp_path / "a.txt"
    listing.write_text("a.jpg\n" * 100_000 + "b.jpg\n")
    found = find_pictures(listing)
    assert [path.name for path in found.paths] == ["a.jpg", "b.jpg"]
    assert len(found.ignored) == 99_999
    monkeypatch.setattr(find, "_MOST_LISTED", 1)
    with pytest.raises(SourceError, match=r"names 2 images \(allowed: up to 1\); split it"):
        find_pictures(listing)
    monkeypatch.setattr(find, "_LONGEST_LIST_BYTES", 1 << 10)
    with pytest.raises(SourceError, match="too long"):
        find_pictures(listing)


def test_a_damaged_avif_is_not_called_a_video(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "a.avif")
    content = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "a.avif").write_bytes(content[: len(content) // 4])
    with pytest.raises(SourceError, match="damaged"):
        open_picture(tmp_path / "a.avif")

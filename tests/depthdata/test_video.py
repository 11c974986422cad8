"""What is no whole depth video gives one line that says so, and no numbers."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream import open_depth_video
from stream.depthdata.description import DepthCodec, Description
from stream.depthdata.mapping import Mapping
from stream.depthdata.storage import join_halves, split_halves
from stream.errors import SourceError, SourceNotFoundError
from stream.frames import DepthKind
from tests.sinks.test_depthvideo import needs_ffmpeg, write

Fields = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("depth")
    write(folder, size=(48, 64))
    write(folder, DepthCodec.HEVC12, size=(48, 64), name="h")
    return folder


@pytest.fixture
def video(made: Path, tmp_path: Path) -> Path:
    """A depth video of twelve frames that may be spoilt."""
    for name in ("a.depth.mkv", "a.depth.json"):
        shutil.copy(made / name, tmp_path / name)
    return tmp_path / "a.depth.mkv"


def edited(path: Path, change: Callable[[Fields], None]) -> None:
    sidecar = path.with_suffix(".json")
    fields = json.loads(sidecar.read_text())
    change(fields)
    sidecar.write_text(json.dumps(fields))


def refusal(path: Path) -> str:
    """The one line, which may come when the file is opened or when it is read."""
    with pytest.raises(SourceError) as caught, open_depth_video(path) as video:
        for _ in video:
            pass
    line = str(caught.value)
    assert "\n" not in line
    assert path.parent.name in line
    assert caught.value.exit_code == 1
    return line


EDITS: dict[str, tuple[Callable[[Fields], None], str]] = {
    "another end": (lambda fields: fields["mapping"].update(hi=9.0), "formula|mapping"),
    "lo ≥ hi": (lambda fields: fields["mapping"].update(lo=80.0), "lower one first"),
    "NaN": (lambda fields: fields["mapping"].update(lo=float("nan")), "lo must be a number"),
    "infinite": (lambda fields: fields["mapping"].update(hi=float("inf")), "hi must be a number"),
    "a text": (lambda fields: fields["mapping"].update(hi="80"), "hi must be a number"),
    "no mapping": (lambda fields: fields.update(mapping=None), "formula"),
    "codes": (lambda fields: fields["mapping"].update(first_code=7), "codes must be"),
    "size": (lambda fields: fields.update(width=63), "width is 64 and 63"),
    "no size": (lambda fields: fields.update(width=0), "width must be"),
    "frames": (lambda fields: fields.update(frames=11), "holds 12 frames, not the 11"),
    "kind": (lambda fields: fields.update(kind="relative_depth", unit=None), "kind is"),
    "unknown kind": (lambda fields: fields.update(kind="depth"), "kind must be one of"),
    "unit": (lambda fields: fields.update(unit="mm"), "unit must be"),
    "time base": (lambda fields: fields.update(time_base="1/25"), "time_base is"),
    "no time base": (lambda fields: fields.update(time_base="1/0"), "time_base must be"),
    "endless time base": (lambda fields: fields.update(time_base="1e9999999"), "time_base must be"),
    "digest": (lambda fields: fields.update(weights_sha256="x"), "64 hex digits"),
    "newer": (lambda fields: fields.update(format=2), "format must be 1"),
    "formula": (lambda fields: fields.update(formula="value = code"), "formula must be"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_refuses_an_edited_sidecar(video: Path, edit: str) -> None:
    change, what = EDITS[edit]
    edited(video, change)
    line = refusal(video)
    assert re.search(what, line), line


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b" " * 200_000, b"null"], ids=len)
def test_refuses_a_sidecar_that_is_none(video: Path, content: bytes) -> None:
    video.with_suffix(".json").write_bytes(content)
    assert "a.depth.json" in refusal(video)


def test_needs_no_sidecar_and_none_belongs_to_other_names(video: Path) -> None:
    video.with_suffix(".json").unlink()
    with open_depth_video(video) as opened:
        assert len(list(opened)) == opened.frame_count == 12
    other = video.rename(video.with_name("b.mkv"))
    video.with_name("b.json").write_text("{}")
    with open_depth_video(str(other)) as opened:
        assert len(list(opened)) == 12


def test_a_mapping_whose_codes_have_one_value_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, mapping=Mapping(lo=0.25, hi=80.0, shift=1.0, use_log=True)).path
    content = path.read_bytes()
    assert content.count(b'"shift": 1.0') == 1
    path.write_bytes(content.replace(b'"shift": 1.0', b'"shift":1e30'))
    path.with_suffix(".json").unlink()
    assert "must have different values" in refusal(path)


@pytest.mark.parametrize("with_sidecar", [True, False], ids=["sidecar", "alone"])
@pytest.mark.parametrize("share", [0.3, 0.62, 0.97])
def test_a_file_that_is_cut_off_is_refused(video: Path, share: float, *, with_sidecar: bool) -> None:
    content = video.read_bytes()
    video.write_bytes(content[: int(share * len(content))])
    if not with_sidecar:
        video.with_suffix(".json").unlink()
    line = refusal(video)
    assert "cut off" in line or "damaged" in line


def test_a_file_that_is_cut_off_in_its_header_is_not_called_converted(video: Path) -> None:
    content, lines = video.read_bytes(), set()
    first_frame = content.index(b"dpts") - 100
    for length in range(5, first_frame + 1500, 97):
        video.write_bytes(content[:length])
        lines.add(refusal(video))
    assert not [line for line in lines if "converted" in line]
    assert [line for line in lines if "cut off: its first frames" in line]


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_a_cut_mp4_is_refused(made: Path, tmp_path: Path, share: float) -> None:
    content = (made / "h.depth.mp4").read_bytes()
    cut = tmp_path / "h.depth.mp4"
    cut.write_bytes(content[: int(share * len(content))])
    assert refusal(cut)


@pytest.mark.parametrize("name", ["a.depth.mkv", "h.depth.mp4"])
def test_no_changed_byte_gives_other_numbers(made: Path, tmp_path: Path, name: str) -> None:
    with open_depth_video(made / name) as opened:
        right = [(pts, depth.values.tobytes()) for pts, _, depth in opened.timed()]
    content, refused = (made / name).read_bytes(), 0
    spoilt = tmp_path / name
    for place in range(700, len(content), len(content) // 23):
        spoilt.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            with open_depth_video(spoilt) as opened:
                assert [(pts, depth.values.tobytes()) for pts, _, depth in opened.timed()] == right
        except SourceError:
            refused += 1
    assert refused > 12


def holed(path: Path, start: float, end: float) -> None:
    """Overwrite a part with zeros, as a disk or a download with a missing block does."""
    content = bytearray(path.read_bytes())
    places = slice(int(start * len(content)), int(end * len(content)))
    content[places] = bytes(len(content[places]))
    path.write_bytes(content)


@pytest.mark.parametrize("with_sidecar", [True, False], ids=["sidecar", "alone"])
@pytest.mark.parametrize("hole", [(0.08, 0.4), (0.3, 0.6), (0.5, 0.99), (0.7, 1.0), (0.08, 1.0)], ids=str)
def test_a_hole_in_a_file_is_no_shorter_video(video: Path, hole: tuple[float, float], *, with_sidecar: bool) -> None:
    holed(video, *hole)
    if not with_sidecar:
        video.with_suffix(".json").unlink()
    line = refusal(video)
    assert re.search("missing|damaged|cut off|cannot be read|ends after", line), line


@pytest.mark.parametrize("name", ["a.depth.mkv", "h.depth.mp4"])
def test_no_hole_loses_a_frame_in_silence(made: Path, tmp_path: Path, name: str) -> None:
    """Neither from the start nor after a seek to any frame."""
    with open_depth_video(made / name) as opened:
        right = [(pts, depth.values.tobytes()) for pts, _, depth in opened.timed()]
        unit = float(opened.time_base)
    spoilt, refused, random = tmp_path / name, 0, np.random.default_rng(3)
    for _ in range(40):
        spoilt.write_bytes((made / name).read_bytes())
        start = random.uniform(0.05, 0.95)
        holed(spoilt, start, start + random.choice([0.001, 0.02, 0.1, 0.4]))
        try:
            opened = open_depth_video(spoilt)
        except SourceError:
            refused += 1
            continue
        with opened:
            for first in (0, 4, 11):
                try:
                    opened.seek(right[first][0] * unit)
                    got = [(pts, depth.values.tobytes()) for pts, _, depth in opened.timed()]
                except SourceError:
                    refused += 1
                else:
                    assert got == right[first:]
    assert refused > 30


@needs_ffmpeg
@pytest.mark.parametrize("dropped", ["eq(n,0)+eq(n,1)", "eq(n,5)+eq(n,6)", "eq(n,10)"])
def test_frames_that_another_program_removed_are_missed(video: Path, tmp_path: Path, dropped: str) -> None:
    other = tmp_path / "other.depth.mkv"
    drop = f"noise=drop='{dropped}'"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(video), "-c", "copy", "-bsf:v", drop, str(other)], check=True)
    line = refusal(other)
    assert "frames are missing" in line or "first frames cannot be read" in line


def test_other_files_are_no_depth_videos(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        open_depth_video(tmp_path / "none.depth.mkv")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "empty.depth.mkv").touch()
    assert "no depth video" in refusal(tmp_path / "empty.depth.mkv")
    (tmp_path / "text.depth.mp4").write_text("hello " * 100)
    assert "no depth video" in refusal(tmp_path / "text.depth.mp4")


@needs_ffmpeg
def test_what_another_program_has_converted_is_no_depth_video(video: Path, tmp_path: Path) -> None:
    def ffmpeg(name: str, *options: str) -> Path:
        subprocess.run(["ffmpeg", "-v", "error", "-i", str(video), *options, str(tmp_path / name)], check=True)
        return tmp_path / name

    assert "holds ffv1 gray" in refusal(ffmpeg("eight.mkv", "-c:v", "ffv1", "-pix_fmt", "gray"))
    assert "holds h264" in refusal(ffmpeg("shown.mkv", "-c:v", "libx264"))
    assert "32×24" in refusal(ffmpeg("small.mkv", "-c:v", "ffv1", "-vf", "scale=32:24:flags=neighbor"))
    assert "lacks its exact time" in refusal(ffmpeg("again.mkv", "-c:v", "ffv1", "-level", "3"))
    plain = ffmpeg("plain.mkv", "-map_metadata", "-1", "-c:v", "ffv1")
    assert "metadata do not say" in refusal(plain)
    assert "--save video16" in refusal(plain)


def test_refuses_frames_beyond_the_limit_before_it_decodes(video: Path) -> None:
    with pytest.raises(SourceError, match=r"64×48.*up to 0.003 megapixels.*max_pixels"):
        open_depth_video(video, max_pixels=3000)


@pytest.mark.parametrize("name", ["a.depth.mkv", "h.depth.mp4"])
def test_close_ends_its_threads(made: Path, name: str) -> None:
    def threads() -> int:
        status = Path("/proc/self/status")
        if not status.exists():
            return threading.active_count()
        return int(status.read_text().split("Threads:")[1].split()[0])

    before = threads()
    for _ in range(3):
        opened = open_depth_video(made / name)
        next(iter(opened))
        opened.close()
        opened.close()
        with pytest.raises(SourceError, match="closed"):
            opened.seek(0)
        with pytest.raises(SourceError, match="is closed"):
            next(iter(opened))
    assert threads() <= before


def specials() -> Iterator[np.float32]:
    yield from (np.float32(text) for text in ("0", "-0", "1e-45", "3.4e38", "-3.4e38", "0.1"))


def test_halves_hold_every_bit() -> None:
    values = np.array(list(specials()), np.float32).reshape(2, 3)
    halves = split_halves(values)
    assert halves.shape == (4, 3)
    assert join_halves(halves).tobytes() == values.tobytes()


@pytest.mark.parametrize("codec", list(DepthCodec))
def test_a_description_comes_back_from_its_json(codec: DepthCodec) -> None:
    mapping = {
        DepthCodec.FFV1: Mapping(lo=-1.5, hi=0.1),
        DepthCodec.HEVC12: Mapping(lo=0, hi=10, first=0, last=4095, use_log=True, shift=3.5),
    }.get(codec)
    made = Description(
        kind=DepthKind.RELATIVE_DISPARITY, codec=codec, mapping=mapping, source="https://u:secret@h/é?t=1", size=(3, 4)
    )
    assert "secret" not in made.as_json()
    assert Description.from_json(made.as_json(indent=1)) == made
    assert made.difference(made) == ""

"""Segments of a video: cut at key frames without decoding, and together exactly what an uninterrupted run reads."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.capture.video.scan import IndexScan, Scan, scan
from stream.config import Config
from stream.frames import Frame
from stream.jobs.opening import spec_named
from stream.jobs.plan import plan_outputs
from stream.jobs.segments.cutting import cut, open_rows, rows_of_scan, warm_up_of_range_s, why_in_one_piece
from stream.jobs.segments.rows import Row
from stream.jobs.source import open_config_source
from stream.render.range import EmaRange
from tests.support.media_files import packet_bytes, remuxed, truncated, write_video
from tests.support.picture_files import save

SECONDS, RATE = 48, 2
EVEN = tuple(range(SECONDS * RATE))
"""In units of 1/`RATE` s."""
TWICE = tuple(t * 2 - t % 3 for t in range(50))


def scene(index: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Another picture for each frame, which moves, so that a frame decoded without its references is another one."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    wave = 127 + 60 * np.sin((x + 3 * index) / 7) + 60 * np.cos((y - 2 * index) / 5)
    return np.repeat(wave[..., None], 3, 2).astype(np.uint8)


INTERLACED = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
FILES: dict[str, dict[str, Any]] = {
    "b-frames.mp4": {"b_frames": 3, "gop": 9, "audio_s": 5.0},
    "uneven.mp4": {"b_frames": 2, "gop": 11, "pts": TWICE},
    "uneven.mkv": {"b_frames": 2, "gop": 11, "pts": TWICE},
    "open.mkv": {"b_frames": 3, "gop": 12, "options": {"x264-params": "open-gop=1"}},
    "open.mp4": {"b_frames": 3, "gop": 12, "codec": "libx265"},
    "late.mp4": {"b_frames": 2, "gop": 12, "pts": tuple(t + 37 for t in EVEN)},
    "odd.mp4": {"size_hw": (35, 49), "pixel_format": "yuv444p"},
    "turned.mov": {"rotation_deg": 90, "b_frames": 2},
    "fragments.mp4": {"b_frames": 2, "mux_options": {"movflags": "frag_keyframe+empty_moov"}},
    "a.webm": {"codec": "libvpx-vp9", "gop": 9},
    "a.avi": {"codec": "mpeg4", "gop": 9},
    "b.avi": {"codec": "mpeg4", "gop": 9, "b_frames": 2},
    "a.flv": {"b_frames": 2, "gop": 12},
    "a.ts": {"b_frames": 2, "gop": 12, "pts": tuple(t + 40 for t in EVEN), "audio_s": 5.0},
    "a.mpg": {"codec": "mpeg2video", "rate": Fraction(25), "b_frames": 2, "pts": tuple(range(0, 25 * 48, 12))},
    "prores.mov": {"codec": "prores_ks", "pixel_format": "yuv422p10le"},
    "ffv1.mkv": {"codec": "ffv1", "pts": tuple(range(144))},
    "interlaced.mp4": {"options": INTERLACED, "b_frames": 2},
    "interlaced.mkv": {"options": INTERLACED | {"x264-params": "tff=1:open-gop=1"}, "b_frames": 3, "gop": 10},
    "mpeg2.mkv": {
        "codec": "mpeg2video", "options": {"flags": "+ildct+ilme"}, "rate": Fraction(25), "b_frames": 2,
        "pts": tuple(range(0, 25 * 48, 12)),
    },
    "interlaced.ts": {
        "codec": "mpeg2video", "options": {"flags": "+ildct+ilme"}, "rate": Fraction(25),
        "pts": tuple(range(0, 25 * 48, 12)),
    },
}  # fmt: skip


def later(ticks: int) -> Callable[[list[Any]], list[Any]]:
    """Packets whose times are so many ticks of their own later."""

    def moved(packets: list[Any]) -> list[Any]:
        for packet in packets:
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packets

    return moved


def without(count: int) -> Callable[[list[Any]], list[Any]]:
    """The first packets are missing, the key frame among them."""
    return lambda packets: packets[count:]


REMUXED: dict[str, tuple[str, Callable[[list[Any]], list[Any]]]] = {
    "edited.mp4": ("b-frames.mp4", later(-7)),
    "headless.ts": ("b-frames.mp4", without(3)),
    "headless.mkv": ("open.mkv", without(5)),
    "headless.mp4": ("open.mp4", without(5)),
}


USUAL = ("b-frames.mp4", "uneven.mkv", "open.mkv", "open.mp4", "fragments.mp4", "a.webm", "a.avi", "a.ts", "ffv1.mkv")
"""Of each way to cut one, and of each container that counts time in its own way; the others are slow tests."""


def usual_first(names: Iterable[str]) -> list[Any]:
    """The names as parameters."""
    return [name if name in (*USUAL, *REMUXED) else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cut")


def written(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists() and name in REMUXED:
        source, change = REMUXED[name]
        remuxed(written(folder, source), path, change)
    elif not path.exists():
        given = {"pts": EVEN, "rate": Fraction(RATE), "size_hw": (48, 64), **FILES[name]}
        write_video(path, draw=scene, **given)
    return path


def config_of(path: Path, *, segment_seconds: float = 10, render_range: str = "frame", **capture: Any) -> Config:
    """By default nothing remembers earlier frames, so that segments are read from their first frame."""
    output = {"path": str(path.with_name("out.mp4")), "segment_seconds": segment_seconds, "overwrite": True}
    sections = {"capture": capture, "render": {"range": render_range}, "output": output}
    return Config.model_validate({"source": str(path), **sections})


def rows_of(config: Config) -> tuple[Row, ...]:
    with open_config_source(config) as source:
        rows = cut(config, source.info, plan_outputs(config, source.info), spec_named(config))
    assert not isinstance(rows, str), rows
    return rows


def frames_of(config: Config) -> list[Frame]:
    with open_config_source(config) as source:
        return list(source)


def in_rows(config: Config, rows: tuple[Row, ...]) -> list[list[Frame]]:
    """The frames of each row, from a source of its own."""
    found = []
    for row in rows:
        with open_rows(config, [row]) as source:
            frames = []
            for frame in source:
                if row.end is not None and frame.pts >= row.end:
                    break
                if frame.pts >= row.start:
                    assert frame.time_base == Fraction(row.tick)
                    frames.append(frame)
        found.append(frames)
    return found


def assert_equal_in_parts(config: Config, least_rows: int = 2, *, lost_at_end: int = 0) -> tuple[Row, ...]:
    rows, whole = rows_of(config), frames_of(config)
    assert len(rows) >= least_rows
    parts = in_rows(config, rows)
    joined = [frame for part in parts for frame in part]
    assert [frame.pts for frame in joined] == [frame.pts for frame in whole]
    for one, other in zip(joined, whole, strict=True):
        assert np.array_equal(one.rgb, other.rgb), one
    assert [frame.duration for frame in joined] == [frame.duration for frame in whole]
    index = 0
    for row, part in zip(rows, parts, strict=True):
        assert row.first_index == index
        lost = 0 if row.frames is None else row.frames - len(part)
        assert 0 <= lost <= (lost_at_end if row is rows[-1] else 0)
        index += len(part)
    return rows


@pytest.mark.parametrize("name", usual_first(FILES))
def test_segments_hold_every_frame_once_with_the_same_time_and_pixels(folder: Path, name: str) -> None:
    assert_equal_in_parts(config_of(written(folder, name)), 3)


@pytest.mark.parametrize("name", REMUXED)
def test_a_file_whose_first_pictures_are_not_shown_is_counted_from_the_first_that_is(folder: Path, name: str) -> None:
    assert_equal_in_parts(config_of(written(folder, name)), 3)


@pytest.mark.parametrize("name", usual_first(n for n in (*FILES, *REMUXED) if n.endswith((".mp4", ".mov"))))
def test_the_index_of_a_file_says_the_same_as_its_packets(folder: Path, name: str) -> None:
    path = written(folder, name)
    by_index, by_packets = scan(path, every_time=False), scan(path)
    assert isinstance(by_index, IndexScan) is (name not in ("fragments.mp4", *REMUXED))
    config = config_of(path)
    assert rows_of_scan(by_index, config, 1.0) == rows_of_scan(by_packets, config, 1.0)


def test_an_index_whose_packets_are_missing_is_not_believed(folder: Path) -> None:
    whole = write_video(folder / "whole.mp4", pts=EVEN, rate=Fraction(2), gop=8, mux_options={"movflags": "faststart"})
    short = truncated(whole, folder / "half.mp4", share=0.8)
    rows = assert_equal_in_parts(config_of(short), 2, lost_at_end=1)
    assert rows != rows_of(config_of(whole))


@pytest.mark.parametrize("name", ["fragments.mp4", "uneven.mkv", "a.ts", "open.mkv"])
def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(folder: Path, name: str) -> None:
    short = truncated(written(folder, name), folder / f"short-{name}", share=0.97)
    assert_equal_in_parts(config_of(short), 3, lost_at_end=1)


@pytest.mark.parametrize("name", ["b-frames.mp4", "open.mkv", "a.webm"])
def test_damage_changes_nothing_beyond_its_group_of_pictures(folder: Path, name: str) -> None:
    damaged, gop = folder / f"damaged-{name}", FILES[name]["gop"]
    data, packets = bytearray(written(folder, name).read_bytes()), (25, 60, 61)
    for number in packets:
        start, size = packet_bytes(written(folder, name), number)
        data[start + size // 3 : start + size] = bytes(size - size // 3)
    damaged.write_bytes(data)
    config = config_of(damaged)
    rows, whole = rows_of(config), frames_of(config)
    joined = [frame for part in in_rows(config, rows) for frame in part]
    assert [frame.pts for frame in joined] == [frame.pts for frame in whole]
    groups = {number // gop for number in packets}  # a decoder conceals damage with whatever pictures it has
    kept = [(one, other) for one, other in zip(joined, whole, strict=True) if other.index // gop not in groups]
    assert len(kept) >= len(whole) - len(groups) * gop
    assert all(np.array_equal(one.rgb, other.rgb) for one, other in kept)


OPTIONS: dict[str, dict[str, Any]] = {
    "start": {"start": 3.6},
    "end": {"end": 44.3},
    "both": {"start": 1.0, "end": 46.0},
    "frames": {"max_frames": 80},
    "frames from a start": {"start": 2.1, "max_frames": 77},
    "seconds": {"start": 2.0, "max_seconds": 41.0},
    "cropped and mirrored": {"multiple_of": 32, "mirror": True},
    "faster": {"fps": 3},
    "slower": {"fps": 0.7},
    "film": {"fps": 2.997, "start": 1.3, "end": 45},
    "slower frames": {"fps": 0.7, "max_frames": 28},
}


@pytest.mark.parametrize(
    "name", ["b-frames.mp4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("uneven.mkv", "a.ts", "b.avi"))]
)
@pytest.mark.parametrize("options", OPTIONS)
def test_segments_hold_what_the_options_ask_for(folder: Path, name: str, options: str) -> None:
    assert_equal_in_parts(config_of(written(folder, name), **OPTIONS[options]))


# --- where it is cut, and what is computed before ---


def scanned(keys: Sequence[int], frames: int) -> Scan:
    """A video of one frame a second."""
    return Scan(time_base=Fraction(1), pts=np.arange(frames), keys=np.array(keys))


@pytest.mark.parametrize(
    ("keys", "frames", "starts"),
    [
        (range(0, 200, 10), 201, [0, 30, 60, 90, 120, 150, 180]),
        (range(0, 200, 10), 190, [0, 30, 60, 90, 120, 150]),
        (range(0, 205, 1), 205, [0, 30, 60, 90, 120, 150, 180]),
        ([*range(0, 100, 10), 94, 104, 114, 124], 150, [0, 30, 60, 94, 124]),  # a scene begins at 94
        ([0, 50, 100, 150], 200, [0, 50, 100, 150]),
        ([0, 90, 180], 260, [0, 90, 180]),  # no key frame within a minute
        ([0, 30, 60, 75], 79, [0, 30]),  # the rest is not shorter than 20 s
        ([0, 5], 300, [0]),
    ],
)
def test_segments_begin_at_key_frames_about_half_a_minute_apart(
    keys: Sequence[int], frames: int, starts: list[int]
) -> None:
    rows = rows_of_scan(scanned(sorted(keys), frames), Config(), 0.0)
    assert [row.start for row in rows] == [row.first_index for row in rows] == starts
    assert [row.end for row in rows] == [*starts[1:], None]
    assert [row.number for row in rows] == list(range(len(starts)))
    assert sum(row.frames or 0 for row in rows) == frames


@pytest.mark.parametrize(
    ("sections", "least_s", "most_s"),
    [
        ({"render": {"range": "frame"}}, 0, 0),
        ({"render": {"range": "0:5"}}, 0, 0),
        ({"output": {"save": "npy", "picture": "none", "path": "out"}}, 0, 0),
        ({}, 3, 6),
        ({"render": {"range": "frame"}, "inference": {"steady": True}}, 9, 15),
        ({"model": {"name": "vda-small"}, "inference": {"temporal": "stream"}}, 30, 33),  # 64 frames, 2 a second
        ({"model": {"name": "vda-small"}}, 37, 39),
        ({"model": {"name": "vda-small"}, "inference": {"temporal": "off"}, "render": {"range": "frame"}}, 0, 0),
    ],
)
def test_as_much_is_computed_before_a_segment_as_is_remembered(
    folder: Path, sections: dict[str, Any], least_s: float, most_s: float
) -> None:
    config = config_of(written(folder, "ffv1.mkv"), render_range="ema").model_dump(exclude_defaults=True)
    merged = {key: {**config.get(key, {}), **sections.get(key, {})} for key in {*config, *sections} - {"source"}}
    rows = rows_of(Config.model_validate({"source": config["source"], **merged}))
    assert rows[0].warm == rows[0].start == 0
    assert all(row.warm >= 0 for row in rows)
    warm_s = [row.seconds(row.start - row.warm) for row in rows if row.seconds(row.start) > most_s]
    assert warm_s
    assert all(least_s <= length <= most_s for length in warm_s)


def test_a_smoothed_range_that_starts_in_the_middle_is_the_same_to_8_bits() -> None:
    long, late, worst = EmaRange(), EmaRange(), 0.0
    times = [number / 25 for number in range(400)]
    picture = np.zeros((48, 64, 3), np.uint8)
    warm_s = warm_up_of_range_s()
    rng = np.random.default_rng(0)
    for time in times:
        depth = rng.uniform(*sorted(rng.uniform(0, 1, 2)), (48, 64)).astype(np.float32)
        whole = long.range_for(depth, picture, time)
        if time >= 8 - warm_s:
            part = late.range_for(depth, picture, time)
            assert whole is not None
            assert part is not None
            if time >= 8:
                worst = max(worst, *(abs(a - b) for a, b in zip(whole, part, strict=True)))
    assert 0 < worst < 1 / 255 / 100


# --- pictures ---


def test_a_folder_is_cut_by_numbers_and_a_picture_that_cannot_be_read_has_one(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(520):
        save(pictures / f"{number:03}.bmp", np.full((8, 8, 3), number % 200, np.uint8))
    (pictures / "255.bmp").write_bytes(b"damaged")
    (pictures / "256.bmp").write_bytes(b"damaged")
    output = {"path": str(tmp_path / "out")}
    config = Config.model_validate({"source": str(pictures), "output": output})
    rows, whole = rows_of(config), frames_of(config)
    assert [(row.start, row.end, row.frames) for row in rows] == [(0, 256, 256), (256, None, 264)]
    parts = in_rows(config, rows)
    joined = [frame for part in parts for frame in part]
    assert len(joined) == 518
    assert [(f.name, f.index, f.pts) for f in joined] == [(f.name, f.index, f.pts) for f in whole]
    assert parts[1][0].index == 257


# --- what is not cut ---


def once_more(path: Path, target: Path) -> Path:
    """The file twice in a row, as `cat` joins transport streams."""
    target.write_bytes(path.read_bytes() * 2)
    return target


def standing(packets: list[Any]) -> list[Any]:
    """Two pictures have the same time."""
    packets[60].pts = packets[60].dts = packets[59].pts
    return packets


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"output": {"segment_seconds": 0}}, "--segment-seconds is 0"),
        ({"output": {"preview": "window"}}, "a preview is shown"),
        ({"output": {"serve": "127.0.0.1:0"}}, "a page is served"),
        ({"output": {"path": "-"}}, "it is streamed"),
        ({"capture": {"sandbox": True}}, "read from its start"),
        ({"source": "pattern:testsrc2", "capture": {"max_frames": 2000}}, "no second chance"),
    ],
)
def test_jobs_that_are_live_or_cannot_be_read_again_are_not_cut(
    folder: Path, sections: dict[str, Any], why: str
) -> None:
    path = written(folder, "ffv1.mkv")
    output = {"path": str(folder / "out.mp4"), **sections.get("output", {})}
    config = Config.model_validate({"source": str(path), **sections, "output": output})
    unconfined = config.model_copy(update={"capture": config.capture.model_copy(update={"sandbox": False})})
    with open_config_source(unconfined) as source:
        plan = plan_outputs(config, source.info)
        assert why in why_in_one_piece(config, source.info, plan)
        assert why in str(cut(config, source.info, plan))


REFRESH = {"x264-params": "intra-refresh=1"}
UNCUTTABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a.apng": (lambda d: long(d / "a.apng", codec="apng", pixel_format="rgb24"), "builds on"),
    "a.h264": (lambda d: long(d / "a.h264"), "it has no timestamps"),
    "refresh.mp4": (lambda d: long(d / "r.mp4", gop=24, options=REFRESH), "cannot be decoded from a key frame on"),
    "refresh.ts": (lambda d: long(d / "r.ts", gop=24, options=REFRESH), "cannot be decoded from a key frame on"),
    "h264.avi": (lambda d: long(d / "h264.avi", gop=12, b_frames=2), "depend on where reading begins"),
    "one key.mp4": (lambda d: long(d / "one.mp4", gop=1000), "no key frame at which it could be cut"),
    "twice.ts": (lambda d: once_more(long(d / "once.ts"), d / "twice.ts"), "start again or jump"),
    "standing.mkv": (lambda d: remuxed(long(d / "s.mkv", b_frames=0), d / "standing.mkv", standing), "do not increase"),
    "short.mp4": (lambda d: long(d / "short.mp4", pts=EVEN[:39]), "not longer than 20 s"),
}


def long(path: Path, **given: Any) -> Path:
    return write_video(path, **{"pts": EVEN, "rate": Fraction(RATE), "time_base": Fraction(1, RATE), **given})


@pytest.mark.parametrize("name", UNCUTTABLE)
def test_what_cannot_be_read_in_parts_is_not_cut_and_says_why(tmp_path: Path, name: str) -> None:
    write, why = UNCUTTABLE[name]
    config = config_of(write(tmp_path))
    with open_config_source(config) as source:
        assert why in str(cut(config, source.info, plan_outputs(config, source.info)))

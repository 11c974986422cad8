"""Segments: together they hold what a run in one piece holds, whichever process has made them, in whatever order."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stream
from stream.config import Config
from stream.jobs.loaded import Model
from stream.jobs.options import from_options
from stream.jobs.plan import plan_outputs
from stream.jobs.report import Report
from stream.jobs.segments.cutting import cut
from stream.jobs.segments.rotation import FILES
from stream.jobs.segments.rows import Plan, Row, SegmentRecord, settings_of, state_of
from stream.jobs.segments.store import LocalStore
from stream.jobs.segments.work import run_rows, run_segment
from stream.jobs.source import open_config_source
from stream.media import av
from stream.sinks.record import PartOfFolder
from tests.support.media_files import numbered, write_video
from tests.support.segments import decoded, depth_codes, in_pieces, plan_by_frames, same, started
from tests.support.tiny_model import own

LOSSLESS: dict[str, Any] = {"codec": "ffv1", "colormap": "gray"}
"""So that pixels of files can be compared that were encoded apart."""


@pytest.fixture
def model() -> Iterator[Model]:
    with own() as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def clip(path: Path, **changes: Any) -> Path:
    return write_video(path, **({"frames": 60, "gop": 10, "b_frames": 2, "time_base": Fraction(1, 12800)} | changes))


def options(source: Path, output: str, **changes: Any) -> Config:
    return from_options(str(source), {"output": output, **LOSSLESS, **changes})


def balanced(report: Report) -> bool:
    return report.captured == report.written + sum(report.dropped.values()) + len(report.skipped)


def test_one_run_over_all_rows_gives_the_frames_of_a_run_in_one_piece(tmp_path: Path, model: Model) -> None:
    source = clip(tmp_path / "clip.mp4", audio_s=2.4)
    config = options(source, "out.mkv", range="ema")
    stream.run(str(source), output="whole.mkv", model=model, range="ema", **LOSSLESS)
    plan, reports, seen = plan_by_frames(config, [0, 20, 40]), list[Report](), list[int]()
    store = started(LocalStore.beside(tmp_path / "out.mkv"), plan)
    records = run_rows(
        config, plan, plan.rows, store, model=model, on_report=reports.append, on_record=lambda r: seen.append(r.number)
    )
    assert same(in_pieces(store, records), list(decoded(tmp_path / "whole.mkv")))
    assert [record.frames for record in records] == [20, 20, 20]
    assert [(record.first_pts, record.last_pts) for record in records] == [
        (row.start, row.start + 19 * 512) for row in plan.rows
    ]
    assert seen == [0, 1, 2]
    (report,) = reports
    assert balanced(report)
    assert report.written == report.captured == report.inferred == 60
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize("how", ["frame", "ema"])
def test_rows_that_are_done_apart_and_in_any_order_are_the_same(tmp_path: Path, model: Model, how: str) -> None:
    source = clip(tmp_path / "clip.mp4", pts=[0, *(200 * i + i % 3 for i in range(1, 60))], time_base=Fraction(1, 5000))
    config = options(source, "out.mkv", range=how)
    plan = plan_by_frames(config, [0, 10, 30, 50], warm=0 if how == "frame" else 10)
    together, apart = (started(LocalStore(tmp_path / name), plan) for name in ("together", "apart"))
    wanted = run_rows(config, plan, plan.rows, together, model=model)
    records = {row.number: run_segment(config, plan, row, apart, model=model) for row in reversed(plan.rows)}
    found = [records[row.number] for row in plan.rows]
    assert [(one.frames, one.first_pts, one.last_pts) for one in found] == [
        (one.frames, one.first_pts, one.last_pts) for one in wanted
    ]
    pieces, other = in_pieces(apart, found), in_pieces(together, wanted)
    assert [time for time, _ in pieces] == [time for time, _ in other] == [time for time, _ in decoded(source)]
    if how == "frame":  # no memory
        assert same(pieces, other)


def growing(path: Path) -> Path:
    """A video whose frames are larger from the 31st of 60 on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        larger = av.CodecContext.create("mjpeg", "w")
        for context, (width, height) in ((stream.codec_context, (64, 48)), (larger, (80, 96))):
            context.width, context.height, context.pix_fmt = width, height, "yuvj420p"
            context.time_base = Fraction(1, 25)
        for number in range(60):
            context, size_hw = (stream.codec_context, (48, 64)) if number < 30 else (larger, (96, 80))
            frame = av.VideoFrame.from_ndarray(numbered(number, size_hw), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in context.encode(frame):
                packet.stream = stream
                container.mux(packet)
    return path


def test_frames_of_another_size_are_fitted_into_that_of_the_first_wherever_reading_begins(
    tmp_path: Path, model: Model
) -> None:
    source = growing(tmp_path / "clip.mkv")
    config = options(source, "out.mkv", range="frame", segment_seconds=0.5)
    stream.run(str(source), output="whole.mkv", model=model, range="frame", segment_seconds=0, **LOSSLESS)
    with closing(open_config_source(config)) as opened:
        rows = cut(config, opened.info, plan_outputs(config, opened.info))
    assert len(rows) > 3
    plan = Plan(source=state_of(source), settings=settings_of(config), rows=rows)
    store = started(LocalStore.beside(tmp_path / "out.mkv"), plan)
    records = [run_segment(config, plan, row, store, model=model) for row in reversed(plan.rows)]
    pieces = in_pieces(store, records[::-1])
    assert {image.shape for _, image in pieces} == {(48, 64, 3)}
    assert same(pieces, list(decoded(tmp_path / "whole.mkv")))


def test_a_row_that_is_done_is_not_done_again(tmp_path: Path, model: Model) -> None:
    config = options(clip(tmp_path / "clip.mp4"), "out.mp4", codec=None, colormap="turbo")
    plan = plan_by_frames(config, [0, 30])
    store = started(LocalStore.beside(tmp_path / "out.mp4"), plan)
    first = run_segment(config, plan, plan.rows[1], store, model=model)
    again = run_segment(config, plan, plan.rows[1], store, model=model, attempt=2)
    assert again == first
    (piece,) = first.pieces
    content = (store.folder(1) / piece.name).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (piece.size, piece.sha256)
    assert first.model == model.name
    assert (first.device, first.precision, first.backend) == (model.device, model.precision, model.backend)
    assert SegmentRecord.from_fields(first.as_fields()) == first
    assert len((store.root / "0001.json").read_bytes()) < 1000


def test_depth_videos_are_the_same(tmp_path: Path, model: Model) -> None:
    source = clip(tmp_path / "clip.mp4", frames=30)
    given = {"range": "-3:3", "save": ["video16"], "codec": None}
    config = options(source, "out.mp4", **given)
    stream.run(str(source), output="whole.mp4", model=model, range="-3:3", save=["video16"])
    plan = plan_by_frames(config, [0, 10, 20])
    store = started(LocalStore.beside(tmp_path / "out.mp4"), plan)
    records = run_rows(config, plan, plan.rows, store, model=model)
    codes = [codes for record in records for codes in depth_codes(store.folder(record.number) / "depth.mkv")]
    wanted = list(depth_codes(next(tmp_path.glob("whole*.depth.mkv"))))
    assert [time for time, _ in codes] == [time for time, _ in wanted]
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(codes, wanted, strict=True))


def test_files_lie_in_the_output_folder_and_are_listed(tmp_path: Path, model: Model) -> None:
    source = clip(tmp_path / "clip.mp4", frames=30)
    config = options(source, "out", range="-3:3", save=["npy"], every=4, codec=None)
    stream.run(str(source), output="whole", model=model, range="-3:3", save=["npy"], every=4, colormap="gray")
    plan = plan_by_frames(config, [0, 10, 20])
    store = started(LocalStore.beside(tmp_path / "out"), plan)
    records = [run_segment(config, plan, row, store, model=model) for row in reversed(plan.rows)]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "out")) == 30 + 8
    listed = [PartOfFolder.read((store.folder(record.number) / FILES).read_text()) for record in records]
    assert {name: entry for part in listed for name, entry in part.items()} == {
        str(path.relative_to(tmp_path)): (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_keep_their_numbers_and_what_cannot_be_read_is_counted_in_its_row(
    tmp_path: Path, model: Model
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.new("RGB", (48, 32), (40 * number, 90, 30)).save(tmp_path / "photos" / f"{number}.png")
    for number in (2, 3):
        (tmp_path / "photos" / f"{number}.png").write_bytes(b"no picture")
    config = options(tmp_path / "photos", "out", codec=None)
    rows = tuple(
        Row(number=n, start=2 * n, end=[2, 4, None][n], tick="1", warm=2 * n, first_index=2 * n, frames=2)
        for n in range(3)
    )
    plan = Plan(source=state_of(tmp_path / "photos"), settings=settings_of(config), rows=rows)
    found = {}
    for name, order in {"together": [rows], "apart": [[row] for row in reversed(rows)]}.items():
        store = started(LocalStore(tmp_path / name), plan)
        skipped = dict[str, str]()
        for some in order:
            run_rows(config, plan, some, store, model=model, on_skip=skipped.__setitem__)
        records = [store.record(row.number) for row in rows]
        assert sorted(skipped) == ["2.png", "3.png"]
        assert [record and (record.frames, record.counts.get("skipped", 0)) for record in records] == [
            (2, 0), (0, 2), (2, 0),
        ]  # fmt: skip
        found[name] = contents(tmp_path / "out")
    assert sorted(found["apart"]) == ["0.png", "1.png", "4.png", "5.png"]
    assert found["together"] == found["apart"]

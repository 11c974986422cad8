"""Segments when something goes wrong: what was finished stays finished, and the rest is left so that it can be used."""

import errno
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import stream
from stream.errors import ModelError, StreamError
from stream.jobs.loaded import Model
from stream.jobs.options import from_options
from stream.jobs.report import Report
from stream.jobs.segments.rows import Plan
from stream.jobs.segments.store import LocalStore
from stream.jobs.segments.twopass import second_pass
from stream.jobs.segments.work import run_rows
from stream.metrics import Outcome
from tests.support.media_files import write_video
from tests.support.segments import Timed, decoded, depth_codes, in_pieces, plan_by_frames, same, started


class Watch:
    """Counts frames; after `until` of them it fails, or sets `stop`. A model's copy of its network shares it."""

    def __init__(self, until: int = 10**9, stop: threading.Event | None = None) -> None:
        self.until, self.stop = until, stop
        self.seen = 0

    def __deepcopy__(self, _memo: object) -> "Watch":
        return self

    def see(self, frames: int) -> None:
        self.seen += frames
        if self.seen > self.until:
            if self.stop is None:
                raise ValueError("broken on purpose")
            self.stop.set()


class Brightness(nn.Module):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        self.watch.see(len(x))
        return x.mean(1)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def brightness(watch: Watch | None = None) -> Model:
    return Model.from_module(
        Brightness(watch or Watch()), output="disparity", size=32, multiple_of=8, device="cpu", batch=1, threads=1
    )


def job(tmp_path: Path, **changes: Any) -> tuple[Any, Plan, LocalStore]:
    source = write_video(tmp_path / "clip.mp4", frames=40, gop=10, b_frames=2, time_base=Fraction(1, 12800))
    config = from_options(
        str(source), {"output": "out.mkv", "codec": "ffv1", "colormap": "gray", "range": "0:1", **changes}
    )
    plan = plan_by_frames(config, [0, 10, 20, 30])
    return config, plan, started(LocalStore.beside(tmp_path / "out.mkv"), plan)


def finished(store: LocalStore, plan: Plan) -> list[int]:
    return [row.number for row in plan.rows if store.record(row.number) is not None]


def frames_of(tmp_path: Path) -> list[Timed]:
    """Those of an uninterrupted run in one piece."""
    with brightness() as model:
        stream.run(
            str(tmp_path / "clip.mp4"), output="whole.mkv", model=model, codec="ffv1", colormap="gray", range="0:1"
        )
    return list(decoded(tmp_path / "whole.mkv"))


def all_done(config: Any, plan: Plan, store: LocalStore) -> list[Timed]:
    """The frames after a resume."""
    with brightness() as model:
        return in_pieces(store, run_rows(config, plan, plan.rows, store, model=model))


def balanced(report: Report) -> bool:
    return report.captured == report.written + sum(report.dropped.values()) + len(report.skipped)


def test_a_model_that_fails_leaves_the_rows_before_and_a_partial_piece(tmp_path: Path) -> None:
    config, plan, store = job(tmp_path)
    reports = list[Report]()
    with brightness(Watch(25)) as model, pytest.raises(ModelError, match="broken on purpose"):
        run_rows(config, plan, plan.rows, store, model=model, on_report=reports.append)
    assert finished(store, plan) == [0, 1]
    assert [report.outcome for report in reports] == [Outcome.FAILED]
    kept = store.kept(2)
    assert kept is not None
    folder, record = kept
    (piece,) = record.pieces
    assert piece.name == "video.partial.nut"
    assert len(list(decoded(folder / piece.name))) == record.frames > 0
    assert not (tmp_path / "out.mkv").exists()
    assert same(all_done(config, plan, store), frames_of(tmp_path))
    assert store.kept(2) is None


def test_a_stop_leaves_what_there_is_and_the_rest_is_done_later(tmp_path: Path) -> None:
    config, plan, store = job(tmp_path)
    stop, reports = threading.Event(), list[Report]()
    with brightness(Watch(15, stop)) as model:
        records = run_rows(config, plan, plan.rows, store, model=model, stop=stop, on_report=reports.append)
    assert [record.number for record in records] == finished(store, plan)
    assert len(records) < 4
    (report,) = reports
    assert report.outcome is Outcome.INTERRUPTED
    assert balanced(report)
    partial = [kept[1].frames for row in plan.rows if (kept := store.kept(row.number)) is not None]
    assert sum(record.frames for record in records) + sum(partial) == report.written
    assert same(all_done(config, plan, store), frames_of(tmp_path))


@pytest.mark.parametrize("full_at", ["the record", "the piece"])
def test_a_full_disk_costs_one_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str) -> None:
    config, plan, store = job(tmp_path)
    put, sums = LocalStore.put, list[int]()

    def full(*_args: Any) -> Any:
        sums.append(0)
        if len(sums) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        if full_at == "the record":
            disk.setattr(LocalStore, "put", lambda self, folder, record: (full(), put(self, folder, record))[1])
        else:
            from stream.jobs.segments import rotation

            sum_of = rotation.piece_of
            disk.setattr(rotation, "piece_of", lambda path, name: (full(), sum_of(path, name))[1])
        with brightness() as model, pytest.raises((StreamError, OSError), match="No space left"):
            run_rows(config, plan, plan.rows, store, model=model)
    assert 0 in finished(store, plan)
    assert 1 not in finished(store, plan)
    assert same(all_done(config, plan, store), frames_of(tmp_path))


def test_rows_after_the_end_of_a_cut_off_source_are_empty(tmp_path: Path) -> None:
    config, plan, store = job(tmp_path)
    write_video(tmp_path / "clip.mp4", frames=15, gop=10, time_base=Fraction(1, 12800))
    with brightness() as model:
        apart = [run_rows(config, plan, [row], store, model=model)[0] for row in reversed(plan.rows)]
        together = started(LocalStore(tmp_path / "together"), plan)
        records = run_rows(config, plan, plan.rows, together, model=model)
    assert [record.frames for record in apart] == [0, 0, 5, 10]
    assert [record.frames for record in records] == [10, 5, 0, 0]
    assert all(record.warnings for record in apart[:2])
    assert same(in_pieces(store, apart[::-1]), in_pieces(together, records))


def test_two_passes_in_rows_give_what_one_run_gives(tmp_path: Path) -> None:
    config, plan, store = job(tmp_path, range="clip", save=["video16"], resume=True)
    with brightness(Watch(25)) as model, pytest.raises(ModelError, match="broken on purpose"):
        run_rows(config, plan, plan.rows, store, model=model)
    assert finished(store, plan) == [0, 1]
    network = Watch()
    with brightness(network) as model:
        run_rows(config, plan, plan.rows, store, model=model)
        computed = network.seen
        report = second_pass(config, plan, store, model=model)
        whole = stream.run(
            str(tmp_path / "clip.mp4"), output="whole.mkv", model=model, codec="ffv1", colormap="gray", range="clip",
            save=["video16"],
        )  # fmt: skip
        assert model(np.zeros((32, 32, 3), np.uint8)).size == (32, 32)  # given back
    assert (computed, network.seen) == (20, 20 + 40 + 1)
    assert report.clip_range == whole.clip_range
    assert (report.written, report.captured) == (40, 40)
    assert same(list(decoded(tmp_path / "out.mkv")), list(decoded(tmp_path / "whole.mkv")))
    found, wanted = (list(depth_codes(next(tmp_path.glob(f"{name}*.depth.mkv")))) for name in ("out", "whole"))
    assert [time for time, _ in found] == [time for time, _ in wanted]
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(found, wanted, strict=True))

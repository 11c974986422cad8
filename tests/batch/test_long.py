"""Long videos in a batch: spread over workers and shards in segments, and put together again."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.batch.job import Batch
from stream.batch.records import Records
from stream.batch.schedule import Shard
from stream.batch.summary import Summary
from stream.batch.worker import Worker
from stream.cli.main import invoke
from stream.config import Config
from stream.jobs.options import from_options
from stream.jobs.run import run_config
from stream.jobs.segments.store import LocalStore
from tests.batch.test_batch import Inline, states, tree
from tests.batch.test_worker import QUICK, frames_of
from tests.jobs.test_run import audio_packets, video_times
from tests.support.media_files import write_video
from tests.support.picture_files import save, scene

OPTIONS: dict[str, Any] = {**QUICK, "segment_seconds": 1, "colormap": "gray", "range": "frame", "crf": 0}
"""Five segments of the clip here, without memory across their borders and without loss."""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    shape = {"frames": 50, "rate": Fraction(10), "gop": 10, "b_frames": 2, "size_hw": (32, 48)}
    return write_video(tmp_path / "clip.mp4", time_base=Fraction(1, 12800), audio_s=5.0, **shape)  # type: ignore[arg-type]


@pytest.fixture
def alone(clip: Path) -> Path:
    """The result of a plain run."""
    path = clip.with_name("alone.mp4")
    run_config(from_options(str(clip), {**OPTIONS, "segment_seconds": 0, "output": path}))
    return path


def batch(clip: Path, out: Path, *, jobs: int = 1, shard: Shard | None = None, **options: Any) -> Summary:
    config = from_options(None, {**OPTIONS, "output": out, **options})
    return Batch(config, [str(clip)], jobs=jobs, shard=shard, executor=Inline).run()


def check_same(result: Path, alone: Path) -> None:
    """The same frames, times and packets of sound."""
    assert [time * base for time, base in video_times(result)] == [time * base for time, base in video_times(alone)]
    assert audio_packets(result) == audio_packets(alone)
    for one, other in zip(frames_of(result), frames_of(alone), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_long_video_is_what_a_run_makes_of_it(clip: Path, alone: Path, tmp_path: Path, jobs: int) -> None:
    summary = batch(clip, tmp_path / "out", jobs=jobs)
    assert (states(summary), summary.exit_code) == ({"clip.mp4": "done"}, 0)
    assert summary.sources[0].rows == 5
    check_same(tmp_path / "out/clip.mp4", alone)
    assert tree(tmp_path / "out") == ["clip.mp4"]
    again = batch(clip, tmp_path / "out", jobs=jobs)
    assert again.sources[0].earlier


class Pair(Inline):
    """Two workers, which take turns."""

    slots = 2

    def __init__(self, configs: Sequence[Config]) -> None:
        super().__init__(configs)
        self.other = Worker(configs[0], scratch="other")

    def submit(self, task: Any) -> None:
        super().submit(task)
        self.worker, self.other = self.other, self.worker

    def close(self) -> None:
        super().close()
        self.other.close()


def test_workers_agree_on_a_backend_that_may_change(clip: Path, alone: Path, tmp_path: Path) -> None:
    config = from_options(None, {**OPTIONS, "backend": "auto", "output": tmp_path / "out"})
    summary = Batch(config, [str(clip)], jobs=2, executor=Pair).run()
    assert states(summary) == {"clip.mp4": "done"}, summary.sources[0].result
    check_same(tmp_path / "out/clip.mp4", alone)


@pytest.mark.slow
def test_shards_do_segments_which_join_and_batch_put_together(clip: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = batch(clip, out, shard=Shard(number=1, count=2))
    assert states(first) == {"clip.mp4": "segments"}
    assert not (out / "clip.mp4").exists()
    assert invoke(["join", str(out)]) == 2, "segments of the other shard are missing"
    assert states(batch(clip, out, shard=Shard(number=1, count=2))) == {"clip.mp4": "elsewhere"}
    assert states(batch(clip, out, shard=Shard(number=2, count=2))) == {"clip.mp4": "segments"}
    assert invoke(["join", str(out)]) == 0
    check_same(out / "clip.mp4", alone)
    assert tree(out) == ["clip.mp4"]
    assert batch(clip, out).sources[0].earlier, "what was joined is a result of the batch"


@pytest.mark.slow
def test_a_batch_joins_what_shards_have_done(clip: Path, alone: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        batch(clip, tmp_path / "out", shard=Shard(number=number, count=3))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/clip.mp4.segments").glob("*.json")}
    assert len(before) == 6, "the plan and five records"
    summary = batch(clip, tmp_path / "out", jobs=2)
    assert summary.sources[0].result.get("frames") == 50, summary.sources[0].result
    check_same(tmp_path / "out/clip.mp4", alone)
    assert tree(tmp_path / "out") == ["clip.mp4"]


@pytest.mark.slow
def test_overwrite_begins_a_long_video_again(clip: Path, tmp_path: Path) -> None:
    batch(clip, tmp_path / "out", shard=Shard(number=1, count=2))
    summary = batch(clip, tmp_path / "out", overwrite=True, input_size=96)
    assert summary.sources[0].missing == (0, 1, 2, 3, 4)
    assert summary.exit_code == 0


NUMBERS: dict[str, dict[str, Any]] = {
    "files and two passes": {"save": ["npy"], "range": "clip"},
    "files": {"save": ["npy", "png16"], "png16_unit": None, "range": "0:100"},
    "every third": {"save": ["npy"], "every": 3},
    "files alone": {"save": ["npy"], "picture": "none"},
    "two passes": {"range": "clip"},
    "a depth video": {"save": ["video16"]},
    "a depth video alone": {"save": ["video16"], "picture": "none"},
}


def content_of(folder: Path) -> dict[str, Any]:
    """Decoded frames and times of videos, bytes of the rest, by name."""
    found: dict[str, Any] = {}
    for name in tree(folder):
        path = folder / name
        if path.suffix in (".mp4", ".mkv"):
            times = [time * base for time, base in video_times(path)]
            found[name] = times, [frame.tobytes() for frame in frames_of(path)]
        else:
            found[name] = path.read_bytes()
    return found


def plain(clip: Path, folder: Path, result: str, **options: Any) -> dict[str, Any]:
    """What a plain run in one piece makes."""
    run_config(from_options(str(clip), {**OPTIONS, "segment_seconds": 0, "output": folder / result, **options}))
    return content_of(folder)


def result_of(options: dict[str, Any]) -> str:
    """The name that a batch gives to the result of the clip."""
    if options.get("picture") != "none":
        return "clip.mp4"
    return "clip.depth.mkv" if "video16" in options["save"] else "clip"


@pytest.mark.parametrize(
    ("kind", "jobs"),
    [
        pytest.param(kind, jobs, marks=() if (kind, jobs) == ("files and two passes", 2) else pytest.mark.slow)
        for kind in NUMBERS
        for jobs in (1, 2)
    ],
)
def test_numbers_of_a_long_video_are_those_of_a_plain_run(clip: Path, tmp_path: Path, kind: str, jobs: int) -> None:
    options, out = NUMBERS[kind], tmp_path / "out"
    summary = batch(clip, out, jobs=jobs, **options)
    assert states(summary) == {"clip.mp4": "done"}, summary.sources[0].result
    assert summary.sources[0].rows == 5
    assert content_of(out) == plain(clip, tmp_path / "alone", result_of(options), **options)
    assert batch(clip, out, jobs=jobs, **options).sources[0].earlier


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files and two passes", "files", "a depth video"])
@pytest.mark.parametrize("ends_with", ["join", "batch"])
def test_shards_share_numbers_and_two_passes(clip: Path, tmp_path: Path, kind: str, ends_with: str) -> None:
    options, out = NUMBERS[kind], tmp_path / "out"
    assert states(batch(clip, out, shard=Shard(number=1, count=2), **options)) == {"clip.mp4": "segments"}
    assert invoke(["join", str(out)]) == 2, "segments of the other shard are missing"
    batch(clip, out, shard=Shard(number=2, count=2), **options)
    assert not (out / "clip.mp4").exists()
    if ends_with == "join":
        assert invoke(["join", str(out)]) == 0
        assert content_of(out) == plain(clip, tmp_path / "alone", "clip.mp4", **options)
        made = (out / "clip.mp4").stat().st_mtime_ns
        batch(clip, out, **options)
        assert (out / "clip.mp4").stat().st_mtime_ns == made, "it is known to be done"
        return
    assert states(batch(clip, out, **options)) == {"clip.mp4": "done"}
    assert content_of(out) == plain(clip, tmp_path / "alone", "clip.mp4", **options)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_file_in_the_place_of_a_long_result_is_neither_replaced_nor_taken_for_it(
    clip: Path, tmp_path: Path, jobs: int
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "clip.mp4").write_text("someone else's")
    for _ in range(2):
        summary = batch(clip, out, jobs=jobs)
        assert states(summary) == {"clip.mp4": "failed"}
        assert "exists" in summary.sources[0].result["reason"]
        assert (out / "clip.mp4").read_text() == "someone else's"


class KilledError(BaseException):
    """Stands for a signal that ends the process in the middle of a call."""


@pytest.mark.parametrize(
    ("owner", "call"),
    [
        (Records, "save"),
        pytest.param(LocalStore, "discard", marks=pytest.mark.slow),
        pytest.param(Records, "forget_begun", marks=pytest.mark.slow),
    ],
)
def test_a_result_is_known_although_its_worker_died_right_after_it(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, call: str
) -> None:
    out = tmp_path / "out"

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, die)
        with pytest.raises(KilledError):
            batch(clip, out)
    made = (out / "clip.mp4").stat().st_mtime_ns
    again = batch(clip, out)
    assert (states(again), again.exit_code) == ({"clip.mp4": "done"}, 0), again.sources[0].result
    assert (out / "clip.mp4").stat().st_mtime_ns == made
    assert tree(out) == ["clip.mp4"]
    assert not (out / "clip.mp4.segments").exists()
    assert batch(clip, out).sources[0].earlier
    assert not any((out / ".depthstream" / "begun").rglob("*.json"))


@pytest.mark.parametrize("content", ['{"of": "someone else"}', "{"])
def test_a_plan_that_is_none_of_ours_fails_its_source_alone(clip: Path, tmp_path: Path, content: str) -> None:
    out, sources = tmp_path / "out", tmp_path / "sources"
    (out / "sources" / "clip.mp4.segments").mkdir(parents=True)
    plan = out / "sources" / "clip.mp4.segments" / "plan.json"
    plan.write_text(content)
    sources.mkdir()
    clip.rename(sources / "clip.mp4")
    save(sources / "p.png", scene(20, 30))
    for overwrite in (True, False):
        summary = batch(sources, out, overwrite=overwrite)
        assert states(summary) == {"sources/clip.mp4": "failed", "sources/p.png": "done"}
        assert summary.exit_code == 3
        assert "is no plan of segments" in (out / "failed" / "sources" / "clip.mp4.txt").read_text()
        assert plan.read_text() == content


@pytest.mark.slow
def test_overwrite_replaces_a_file_in_the_place_of_a_long_result(clip: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "clip.mp4").write_text("someone else's")
    assert states(batch(clip, out, jobs=2, overwrite=True)) == {"clip.mp4": "done"}
    check_same(out / "clip.mp4", alone)

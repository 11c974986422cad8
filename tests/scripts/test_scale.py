"""The simulator of a large job gives known answers, and the page's numbers are what it gives."""

import importlib.util
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.support.paths import REPOSITORY


def module_of(name: str) -> Iterator[ModuleType]:
    """A module of `scripts/scale/`."""
    spec = importlib.util.spec_from_file_location(f"scale_{name}", REPOSITORY / "scripts" / "scale" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def scale() -> Iterator[ModuleType]:
    yield from module_of("simulate")


@pytest.fixture(scope="module")
def cost() -> Iterator[ModuleType]:
    yield from module_of("cost")


def seconds(result: object) -> float:
    """Everything that a result accounts for."""
    names = ("useful_s", "again_s", "failed_s", "overhead_s", "warm_s", "away_s", "idle_s")
    return math.fsum(getattr(result, name) for name in names)


def bare(scale: ModuleType, **changes: float) -> object:
    """Parameters without any cost but the frames."""
    return scale.Parameters(**({"life_h": 0, "load_s": 0, "task_s": 0} | changes))


def test_one_worker_takes_the_sum(scale: ModuleType) -> None:
    lengths = (5.0, 100.0, 0.5)
    given = bare(scale, load_s=7, task_s=0.25)
    result = scale.simulate(given, [scale.Task(length) for length in lengths], [0.5])
    assert result.makespan_s == 7 + 3 * 0.25 + 0.5 * sum(lengths)
    assert (result.done, result.tail_s, result.idle_s) == (3, 0, 0)


def test_a_lost_worker_costs_what_a_hand_finds(scale: ModuleType) -> None:
    # 0: A (4) on worker 0, B (3) on worker 1, each after 1 s of loading. 2: worker 0 is lost. 4: B done; A again, on
    # worker 1. 7: worker 0 is replaced, loads and takes C (2). 8: A done, nothing is left. 10: C done.
    lives = iter((2.0, math.inf, math.inf))
    tasks = [scale.Task(4.0), scale.Task(3.0), scale.Task(2.0)]
    result = scale.simulate(bare(scale, load_s=1, replace_s=5), tasks, [1.0, 1.0], life=lambda: next(lives))
    assert (result.makespan_s, result.tail_s) == (10, 2)
    assert (result.useful_s, result.again_s, result.overhead_s, result.away_s, result.idle_s) == (9, 2, 2, 5, 2)
    assert (result.done, result.failed, result.losses) == (3, 0, 1)


def test_longest_first_and_fixed_shards_are_what_a_hand_finds(scale: ModuleType) -> None:
    tasks = [scale.Task(length) for length in (1.0, 2.0, 3.0, 4.0)]
    given = bare(scale)
    assert scale.simulate(given, tasks, [1.0, 1.0]).makespan_s == 6  # 1 + 3, 2 + 4
    assert scale.simulate(given, tasks, [1.0, 1.0], longest_first=True).makespan_s == 5  # 4 + 1, 3 + 2
    assert scale.simulate(given, tasks, [1.0, 1.0], longest_first=True, shards=True).makespan_s == 6  # 4 + 2, 3 + 1
    assert scale.simulate(given, tasks, [1.0, 9.0], shards=True).makespan_s == 9 * (2 + 4)  # as slow as its machine


def test_attempts_are_limited_and_a_good_task_can_be_lost(scale: ModuleType) -> None:
    tasks = [scale.Task(4.0), scale.Task(0.5), scale.Task(10.0, bad_at=0.25)]
    result = scale.simulate(bare(scale, replace_s=5), tasks, [1.0], life=lambda: 1.0)
    assert (result.done, result.failed, result.lost, result.losses) == (1, 2, 1, 3)
    assert (result.again_s, result.failed_s, result.useful_s) == (3, 0.75, 0.5)


def test_nothing_fails_within_grahams_bounds(scale: ModuleType) -> None:
    given = bare(scale, hours=20, bad_share=0)
    tasks = scale.clips(given)
    total, longest = sum(task.length for task in tasks), max(task.length for task in tasks)
    for workers, longest_first in itertools.product((2, 7, 40), (False, True)):
        result = scale.simulate(given, tasks, [1.0] * workers, longest_first=longest_first)
        assert max(total / workers, longest) - 1e-6 <= result.makespan_s
        assert result.makespan_s <= total / workers + longest * (1 - 1 / workers) + 1e-6
        assert result.useful_s == pytest.approx(total)
        assert (result.done, result.failed, result.losses) == (len(tasks), 0, 0)


def test_all_time_is_accounted_for_and_no_task_vanishes(scale: ModuleType) -> None:
    given = scale.Parameters(hours=30, life_h=0.5, bad_share=0.05, warm_s=2, slow_share=0.2)
    for tasks in (scale.clips(given), scale.segments(given, scale.clips(given))):
        for workers, shards in itertools.product((1, 8, 64), (False, True)):
            result = scale.simulate(given, tasks, scale.speeds(given, workers), longest_first=True, shards=shards)
            assert result.done + result.failed == len(tasks)
            assert result.failed - result.lost <= sum(task.bad_at is not None for task in tasks)
            assert seconds(result) == pytest.approx(workers * result.makespan_s)
            assert result.losses > 0
            assert min(result.idle_s, result.away_s, result.tail_s) >= -1e-6


def test_segments_have_all_seconds_of_their_clips(scale: ModuleType) -> None:
    given = scale.Parameters(hours=5, bad_share=0.5, warm_s=2)
    clips = scale.clips(given)
    cut = scale.segments(given, clips)
    assert sum(task.length for task in cut) == pytest.approx(sum(clip.length for clip in clips))
    assert max(task.length for task in cut) <= given.segment_s
    assert sum(task.bad_at is not None for task in cut) == sum(clip.bad_at is not None for clip in clips)
    assert {task.warm for task in cut} == {0, 2}


def test_segments_bound_the_tail_of_stragglers_where_clips_do_not(scale: ModuleType) -> None:
    given = scale.Parameters(hours=60, life_h=0, slow_share=0.2, segment_s=60)
    clips, pace = scale.clips(given), scale.speeds(given, 64)
    assert max(pace) > 2.5 * min(pace)  # there are stragglers
    bound = given.load_s + given.task_s + 60 * max(pace)
    assert 0 < scale.simulate(given, scale.segments(given, clips), pace).tail_s <= bound < 60
    for longest_first in (False, True):
        assert scale.simulate(given, clips, pace, longest_first=longest_first).tail_s > 10 * bound


def test_the_lengths_have_the_median_and_mean_that_are_asked(scale: ModuleType) -> None:
    given = scale.Parameters(hours=3000, longest_s=math.inf)
    lengths = sorted(clip.length for clip in scale.clips(given))
    assert lengths[len(lengths) // 2] == pytest.approx(given.median_s, rel=0.05)
    assert sum(lengths) / len(lengths) == pytest.approx(given.mean_s, rel=0.2)  # few long clips have most of it


def test_the_numbers_of_the_page_are_those_of_the_simulator(scale: ModuleType) -> None:
    stored = json.loads((REPOSITORY / "docs" / "measured" / "scale.json").read_text(encoding="utf-8"))
    given = scale.Parameters()
    assert stored["parameters"] == scale.asdict(given)
    assert stored["lengths"][-1] == pytest.approx(scale.lengths(given, 1024, [1800])[0])
    row = next(row for row in stored["rows"] if (row["workers"], row["order"]) == (1024, "longest first"))
    found = scale.simulate(given, scale.clips(given), scale.speeds(given, 1024), longest_first=True)
    assert {name: row[name] for name in scale.asdict(found)} == pytest.approx(scale.asdict(found))


def test_the_command_takes_parameters_and_refuses_unknown_ones() -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / "scale" / "simulate.py"), "--workers", "1", "2"]
    done = subprocess.run([*command, "--set", "hours=1"], capture_output=True, text=True, check=True)
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:12]] == ["1"] * 5 + ["2"] * 5
    wrong = subprocess.run([*command, "--set", "hour=1"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "no parameter 'hour' (there are: hours, seed" in wrong.stderr


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("life_h=-1", "life_h: -1 is not from 0"),
        ("life_h=1e-9", "life_h: 1e-09 is neither 0 nor at least 0.001"),
        ("segment_s=0", "segment_s: 0 is not from 1"),
        ("hours=0", "hours: 0 is not from 0.001"),
        ("hours=inf", "hours: inf is not from 0.001"),
        ("mean_s=10", "mean_s: 10 is less than the median of 64"),
        ("bad_share=2", "bad_share: 2 is not from 0 to 1"),
        ("bad_share=nan", "bad_share: nan is not from 0 to 1"),
        ("attempts=0", "attempts: 0 is not from 1"),
        ("seed=-1", "seed: -1 is not from 0"),
    ],
)
def test_parameters_that_no_job_has_are_refused(scale: ModuleType, setting: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scale.changed(scale.Parameters(), [setting])


def test_every_parameter_has_a_range_and_several_change_at_once(scale: ModuleType) -> None:
    assert set(scale._RANGES) == set(scale.asdict(scale.Parameters()))
    assert scale.changed(scale.Parameters(), ["mean_s=10", "median_s=5"]).mean_s == 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--machines", "0"], "--machines: at least 1"),
        (["--hours", "0"], "--hours: 0 is not from 0.001"),
        (["--fps", "nan"], "--fps: nan is not from"),
        (["--price", "-1"], "--price: -1 is not from 0"),
    ],
)
def test_costs_of_no_job_are_refused(
    cost: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit):
        cost.main(arguments)
    assert words in capsys.readouterr().err


def test_what_a_job_takes_is_measured_numbers_times_a_count(cost: ModuleType) -> None:
    job = cost.Job(hours=1000, fps=30, price=2, machines=(1, 10))
    speeds = json.loads((REPOSITORY / "docs" / "measured" / "speed-h200.json").read_text(encoding="utf-8"))["pipeline"]
    large = next(row for row in speeds if (row["model"], row["precision"]) == ("depth_anything_v2_vitl", "fp16"))
    hours = 1000 * 3600 * 30 / large["fps"] / 3600
    row = next(line for line in cost.time_table(job) if line.startswith("| `depth_anything_v2_vitl`"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[5:] == [f"{hours:.0f}", f"${2 * hours:.0f}", f"{hours / 24:.0f} days", f"{hours / 10:.0f} h"]
    assert "| `--save npy` | 640×480 | 1 229 | 133 TB |" in cost.size_table(job)

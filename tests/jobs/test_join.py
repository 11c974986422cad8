"""Segments that were made apart are joined into what one run makes; holes and mixtures are refused by name."""

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import stream
from stream.cli.main import invoke
from stream.config import Config
from stream.jobs.loaded import Model, engine_of
from stream.jobs.options import from_options
from stream.jobs.segments.gather import config_of
from stream.jobs.segments.rows import Plan, SourceState, settings_of
from stream.jobs.segments.store import LocalStore
from stream.jobs.segments.work import run_segment
from stream.version import __version__
from tests.jobs.test_run import audio_packets
from tests.support.media_files import write_video
from tests.support.segments import decoded, plan_by_frames, same

OPTIONS: dict[str, Any] = {"codec": "ffv1", "colormap": "gray", "range": "frame", "model": "starter"}


@pytest.fixture
def model() -> Iterator[Model]:
    with stream.load("starter", input_size=64, device="cpu", threads=1) as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def job() -> tuple[Config, Plan, LocalStore]:
    """Planned in three segments, none of which is done."""
    source = write_video(
        Path("clip.mp4").absolute(), frames=15, gop=5, b_frames=2, time_base=Fraction(1, 12800), audio_s=0.6,
        size_hw=(32, 48),
    )  # fmt: skip
    config = from_options(str(source), {"output": "out.mkv", **OPTIONS, "input_size": 64, "start": 0.08})
    plan = plan_by_frames(config, [2, 5, 10])
    store = LocalStore(Path("out.mkv.segments"))
    store.save_plan(plan)
    return config, plan, store


def test_segments_in_any_order_become_the_output_of_one_run(job: tuple[Config, Plan, LocalStore], model: Model) -> None:
    config, plan, store = job
    for row in reversed(plan.rows):
        run_segment(config, plan, row, store, model=model)
    stream.run("clip.mp4", output="one.mkv", start=0.08, **{**OPTIONS, "model": model})
    assert invoke(["join", "out.mkv.segments"]) == 0
    assert same(list(decoded(Path("out.mkv"))), list(decoded(Path("one.mkv"))))
    assert audio_packets(Path("out.mkv")) == audio_packets(Path("one.mkv"))
    assert sorted(path.name for path in Path().iterdir()) == ["clip.mp4", "one.mkv", "out.mkv"]


@pytest.mark.parametrize("how", ["frame", pytest.param("clip", marks=pytest.mark.slow)])
def test_segments_of_a_gpu_are_joined_on_a_machine_without_one(
    job: tuple[Config, Plan, LocalStore], model: Model, how: str
) -> None:
    config, plan, store = job
    config = config.model_copy(update={"render": config.render.model_copy(update={"range": how})})
    asked = {**settings_of(config), "inference.device": "cuda:7", "inference.precision": "fp16"}
    facts = {"weights": engine_of(model).model.weights_sha256, "version": __version__}
    plan = replace(plan, settings=dict(sorted(asked.items())) | facts)
    store.save_plan(plan)
    for row in plan.rows:
        record = run_segment(config, plan, row, store, model=model)
        fields = {**record.as_fields(), "device": "cuda:7", "precision": "fp16"}
        (store.root / f"{row.number:04d}.json").write_text(json.dumps(fields))
    stream.run("clip.mp4", output="one.mkv", start=0.08, **{**OPTIONS, "model": model, "range": how})
    assert invoke(["join", "out.mkv"]) == 0
    assert same(list(decoded(Path("out.mkv"))), list(decoded(Path("one.mkv"))))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert invoke(["join", *arguments]) in (1, 2)
    *_, line = capsys.readouterr().err.splitlines()  # notes on the options come before it
    return line


def test_holes_mixtures_damage_and_changes_are_refused_by_name(
    job: tuple[Config, Plan, LocalStore], model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    config, plan, store = job
    run_segment(config, plan, plan.rows[1], store, model=model)
    assert "out.mkv.segments: segments 0 and 2 are missing: 1 of 3 is done" in refused(capsys, "out.mkv")
    for row in plan.rows:
        run_segment(config, plan, row, store, model=model)
    record = store.root / "0001.json"
    fields, whole = json.loads(record.read_text()), record.read_bytes()
    changes = {"precision": "bf16", "backend": "openvino", "model": "dav2-small", "version": "0.0.1", "plan": "0" * 64}
    for name, value in changes.items():
        record.write_text(json.dumps({**fields, name: value}))
        line = refused(capsys, "out.mkv")
        assert "segment 1" in line
        assert ("another plan" if name == "plan" else f"{name} {value}") in line
    record.write_bytes(whole)
    piece = store.folder(2) / "video.nut"
    data = piece.read_bytes()
    piece.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "out.mkv.segments: segment 2 is damaged since it was made" in refused(capsys, "out.mkv")
    piece.write_bytes(data)
    Path("clip.mp4").rename("other.mp4")
    assert "the source of these segments is not there" in refused(capsys, "out.mkv")
    write_video(Path("clip.mp4"), frames=16, gop=5)
    assert "cannot be joined: source: its size was" in refused(capsys, "out.mkv")
    assert "has no segments to join" in refused(capsys, "nothing.mp4")
    assert sorted(path.name for path in Path().iterdir()) == ["clip.mp4", "other.mp4", "out.mkv.segments"]


def test_the_options_of_a_job_are_read_back_from_its_plan() -> None:
    Path("clip.mp4").write_bytes(b"")
    given = {"save": ("npy", "png16"), "camera_size": (640, 480), "start": 1.5, "steady": True, "max_depth": 20.0}
    config = from_options("clip.mp4", {"output": "out.mp4", "model": "starter", **given})
    plan = Plan(
        source=SourceState(uri="clip.mp4", size=0, stamp="1"),
        settings=settings_of(config, weights="ab", version="1"),
        rows=(),
    )
    again = config_of(Plan.from_fields(plan.as_fields()), Path("out.mp4"))
    assert again == config

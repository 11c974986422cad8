"""`depthstream models`: words for those who do not know the names, groups, every fact as JSON, measured speeds."""

import json
import re
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import pytest

from stream.bench import measured
from stream.bench.measured import Speed
from stream.bench.timing import timed
from stream.cli.main import invoke
from stream.jobs.models import load_engine
from stream.jobs.options import from_options
from stream.models import catalog, registry
from stream.models.spec import InputPolicy, ModelSpec, WeightsFile
from stream.notes import Notes, collected
from tests.support.media_files import write_video

FREE = {"Apache-2.0", "MIT", "BSD-3-Clause"}
SPEED = Speed(
    model="starter", part="network", fps=47.8123, size="256×192", input_size=None, batch=1, device="cpu",
    backend="openvino", precision="fp32", threads=2, synthetic_weights=False, processor="a", cores=2, system="Linux",
    measured_at="2026-01-02T03:04:05+00:00", version="0.1.0",
)  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where speeds are kept, of a machine with the processor "a"."""
    path = tmp_path / "cache" / "measured.json"
    monkeypatch.setattr(measured, "measured_file", lambda: path)
    monkeypatch.setattr(measured, "_machine", lambda: ("a", 2, "Linux"))
    return path


def keep(path: Path, *speeds: Speed) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(speed) for speed in speeds]))


def listed(capsys: pytest.CaptureFixture[str]) -> str:
    assert invoke(["models"]) == 0
    return capsys.readouterr().out


def test_each_word_stands_for_a_model_that_is_there_and_free() -> None:
    assert list(catalog.CHOICES) == ["fast", "balanced", "best", "video", "metric"]
    taken = {name.lower() for spec in catalog.MODELS for name in (spec.name, *spec.aliases)}
    for word, choice in catalog.CHOICES.items():
        notes = Notes()
        with collected(notes):
            spec = registry.find(word.upper())
        assert notes.said == [f"-m {word}: {choice.model}"]
        assert spec.name == choice.model
        assert spec.licence in FREE
        assert spec.weights.url is not None
        assert word not in taken
    found = {word: registry.find(word) for word in catalog.CHOICES}
    assert found["video"].is_temporal
    assert catalog.purpose(found["metric"]) is catalog.Purpose.METRES
    assert catalog.purpose(found["fast"]) is catalog.Purpose.CPU
    assert registry.DEFAULT not in {choice.model for choice in catalog.CHOICES.values()}


def test_a_word_is_taken_wherever_a_model_is_named_and_its_model_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = from_options("pattern:testsrc2", {"model": "fast", "offline": True})
    notes = Notes()
    with collected(notes), pytest.raises(Exception, match="zipdepth_base"):
        load_engine(config)
    assert notes.said == ["-m fast: zipdepth_base"]
    clip = str(write_video(tmp_path / "clip.mp4", frames=1))
    for command in (["run", clip, "-m", "fast"], ["compare", clip, "-m", "starter", "-m", "fast"]):
        assert invoke([*command, "--offline", "-o", str(tmp_path / "x.mp4")]) == 1
        assert "note: -m fast: zipdepth_base\n" in capsys.readouterr().err
    assert invoke(["run", clip, "-m", "vide"]) == 2
    assert "unknown model 'vide'; did you mean video?" in capsys.readouterr().err


def test_every_model_is_listed_once_in_its_group(capsys: pytest.CaptureFixture[str], kept: Path) -> None:
    text = listed(capsys)
    words, *groups = text.split("\n\n")
    assert [line.split()[1] for line in words.splitlines()[1:]] == list(catalog.CHOICES)
    assert groups.pop().startswith("No speed was measured on this machine yet")
    assert [group.splitlines()[0] for group in groups] == [purpose.value for purpose in catalog.Purpose]
    by_group = [re.findall(r"^  (\w+)", group, re.MULTILINE) for group in groups]
    assert sorted(name for group in by_group for name in group) == sorted(registry.names())
    assert "starter" in by_group[0]
    assert "video_depth_anything_vits" in by_group[1]
    assert "da3metric_large" in by_group[2]
    assert "dpt_beit_large_512" in by_group[3]
    assert "\x1b" not in text
    assert not catalog.FOR_CPUS - set(registry.names())


def test_json_has_every_fact_of_a_row(capsys: pytest.CaptureFixture[str], kept: Path) -> None:
    keep(kept, SPEED)
    assert invoke(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == registry.names()
    inside = {"options", "fp32_keys", "needs_aspect", "ignored_keys", "size_hw", "weights", "input"}
    facts = {field.name for kind in (ModelSpec, InputPolicy, WeightsFile) for field in fields(kind)}
    assert facts - inside <= set(rows[0])
    for row, spec in zip(rows, catalog.MODELS, strict=True):
        assert (row["licence"], row["sha256"], row["is_temporal"]) == (
            spec.licence, spec.weights.sha256, spec.is_temporal
        )  # fmt: skip
        assert (row["output"], row["fit"], tuple(row["backends"])) == (spec.output, spec.input.fit, spec.backends)
        assert row["input_size"] == f"{spec.input.size_hw[1]}×{spec.input.size_hw[0]}"
    assert rows[0]["measured"] == [asdict(SPEED)]
    assert all(row["measured"] == [] for row in rows[1:])
    assert {row["name"]: row["choices"] for row in rows}["depth_anything_v2_vits"] == ["balanced"]
    assert {row["allows_commercial_use"] for row in rows if "NC" in row["licence"]} == {False}


def test_the_best_measured_speed_is_shown_with_what_it_depends_on(
    capsys: pytest.CaptureFixture[str], kept: Path
) -> None:
    pipeline = replace(SPEED, part="pipeline", fps=20.04, size="640×480", input_size=128, backend="torch")
    keep(kept, SPEED, replace(pipeline, fps=19.0, precision="bf16"), pipeline)
    text = listed(capsys)
    said = "here; measured: 20 fps (640×480 video, torch fp32 on cpu --input-size 128, 2026-01-02)"
    assert text.count("measured: ") == text.count(said) == 1
    keep(kept, SPEED)
    said = "47.8 fps (the network alone at 256×192, openvino fp32 on cpu, 2026-01-02)"
    assert said in listed(capsys)


def test_speeds_of_another_machine_and_damaged_ones_are_not_shown(
    capsys: pytest.CaptureFixture[str], kept: Path
) -> None:
    keep(kept, replace(SPEED, processor="b"), replace(SPEED, cores=64))
    assert "No speed was measured on this machine yet" in listed(capsys)
    for damaged in ("", "{}", "[1, {}]", json.dumps([{**asdict(SPEED), "fps": "fast"}]), '[{"fps": 1}]', "[" * 9999):
        kept.write_text(damaged)
        assert "No speed was measured on this machine yet" in listed(capsys)
    keep(kept, replace(SPEED, backend="\x1b]0;title\a"))
    assert "\x1b" not in listed(capsys)


def test_bench_keeps_its_speeds_and_replaces_older_ones(
    capsys: pytest.CaptureFixture[str], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.bench.network.timed", partial(timed, budget_s=0.0))
    keep(kept, SPEED)
    quick = ["--parts", "network", "--backend", "torch", "--precision", "fp32", "--size", "64x48"]
    for _ in range(2):
        assert invoke(["bench", *quick, "--batch", "1", "--input-size", "64"]) == 0
    capsys.readouterr()
    old, new = sorted(measured.on_this_machine()["starter"], key=lambda speed: speed.measured_at)
    assert old == SPEED
    assert (new.part, new.backend, new.precision, new.batch, new.input_size) == ("network", "torch", "fp32", 1, 64)
    assert (new.model, new.device, new.size, new.synthetic_weights) == ("starter", "cpu", "96×64", False)
    assert new.fps > 0
    kept.unlink()
    kept.mkdir()  # cannot be written
    assert invoke(["bench", *quick, "--batch", "1", "--input-size", "64"]) == 0
    assert "will not show these speeds" in capsys.readouterr().err

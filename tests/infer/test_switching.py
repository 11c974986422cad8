"""Several models loaded for one preview: which one computes, and what is refused."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from stream.channel import Channel, Closed
from stream.cli.main import invoke
from stream.errors import ConfigError, UsageError
from stream.frames import Depth, DepthKind, Frame
from stream.infer.engine import Engine
from stream.infer.switching import Adaptive, Switching
from stream.notes import Notes, collected
from tests.support.media_files import write_video
from tests.support.tiny_model import frame, loaded


def engines(*outputs: DepthKind) -> list[Engine]:
    made = []
    for number, output in enumerate(outputs):
        model = loaded(output=output)
        made.append(
            Engine(replace(model, spec=replace(model.spec, name=f"tiny{number}")), device="cpu", precision="fp32")
        )
    return made


def feed(frames: list[Frame]) -> Channel[Frame]:
    channel: Channel[Frame] = Channel(len(frames))
    for one in frames:
        channel.put(one)
    channel.close()
    return channel


def nobody(_frame: Frame, reason: str) -> None:
    raise AssertionError(reason)


def test_the_model_changes_from_one_frame_to_the_next() -> None:
    both = Switching(engines(DepthKind.RELATIVE_DISPARITY, DepthKind.METRIC_DEPTH))
    assert both.names == ["tiny0", "tiny1"]
    seen = []
    for number, (given, depth) in enumerate(both.stream(feed([frame(i) for i in range(4)]), nobody)):
        seen.append((given.index, depth.index, depth.model, depth.kind))
        both.current = (number + 1) % 2
    both.close()
    relative, metric = DepthKind.RELATIVE_DISPARITY, DepthKind.METRIC_DEPTH
    assert seen == [
        (0, 0, "tiny0", relative),
        (1, 1, "tiny1", metric),
        (2, 2, "tiny0", relative),
        (3, 3, "tiny1", metric),
    ]


def test_an_aborted_channel_ends_it_with_the_reason() -> None:
    both, channel = Switching(engines(*[DepthKind.RELATIVE_DISPARITY] * 2)), feed([frame(0)])
    channel.abort(OSError("unplugged"))
    with pytest.raises(OSError, match="unplugged"):
        next(iter(both.stream(channel, nobody)))
    both.close()
    with pytest.raises(Closed):
        feed([frame(1)]).put(frame(2))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "starter", "-m", "dav2-small"], "several models only make sense in a preview"),
        (["-m", "starter", "-m", "starter", "--preview"], "the same model is named twice"),
    ],
)
def test_what_cannot_be_switched_is_refused_before_any_work(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(["run", "pattern:testsrc2", "-o", "out.mp4", "--max-frames", "2", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_range_must_mean_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from stream.jobs.models import common_kind
    from stream.jobs.options import from_options

    mixed = engines(DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY)
    with pytest.raises(ConfigError, match="metres for one model and disparity for another"):
        common_kind(from_options("0", {"range": "1:5"}), [engine.spec for engine in mixed])
    assert common_kind(from_options("0", {}), [engine.spec for engine in mixed]) is DepthKind.METRIC_DEPTH
    farther = [replace(mixed[1].spec, output=DepthKind.RELATIVE_DEPTH), mixed[1].spec]
    with pytest.raises(ConfigError, match="relative depth for one model and disparity for another"):
        common_kind(from_options("0", {"range": "1:5"}), farther)
    for engine in mixed:
        engine.close()


class Timed(Engine):
    """An engine on a machine where a frame takes as long as its network input has pixels."""

    now = 0.0
    seconds_per_pixel = 1e-4

    def infer(self, frames: Sequence[Frame]) -> list[Depth]:
        height, width = self.plan(frames[0].size)
        Timed.now += height * width * self.seconds_per_pixel
        return super().infer(frames)


def test_the_inference_size_follows_the_wanted_rate_and_is_told() -> None:
    said: list[str] = []
    engine = Timed(loaded(), device="cpu", precision="fp32")
    with collected(Notes(said.append)):
        adaptive = Adaptive([engine], target_fps=20, clock=lambda: Timed.now)
        sizes = []
        for given, depth in adaptive.stream(feed([frame(i) for i in range(60)]), nobody):
            assert depth.size == given.size
            sizes.append(engine.plan(given.size))
    adaptive.close()
    assert sizes[0] == (24, 32), "its own: 0.077 s where 0.05 s are allowed"
    assert sizes[-1] == (16, 24)
    assert said == ["--target-fps 20: tiny at inference size 24", "--target-fps 20: tiny at inference size 16"]
    assert adaptive.control.changes == adaptive.quality_changes == 1


def test_an_engine_keeps_its_size_when_it_cannot_take_another() -> None:
    model = loaded()
    fixed = loaded(input=replace(model.spec.input, fixed_size=True))
    with closing(Engine(fixed, device="cpu", precision="fp32")) as engine:
        with pytest.raises(UsageError, match="takes one size"):
            engine.resize(48)
        assert engine.plan((48, 64)) == (24, 32)
    with closing(Engine(model, device="cpu", precision="fp32")) as engine:
        engine.submit([frame(0)])
        with pytest.raises(ValueError, match="pending"):
            engine.resize(48)
        engine.collect()
        engine.resize(48)
        assert engine.plan((48, 64)) == (48, 64)
        engine.resize(None)
        assert engine.plan((48, 64)) == (24, 32)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["clip.mp4", "--target-fps", "20"], "only applies to live sources"),
        (["pattern:testsrc2", "--target-fps", "20", "--input-size", "128"], "chooses the inference size itself"),
    ],
)
def test_a_wanted_rate_is_refused_where_it_makes_no_sense(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", frames=2)
    assert invoke(["run", *arguments, "-o", "out.mp4"]) == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_live_run_tells_what_it_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "pattern:testsrc2", "--target-fps", "1000", "-o", "out.mp4", "--max-frames", "60"]
    assert invoke([*arguments, "--report", "r.json"]) == 0
    assert "note: --target-fps 1000: starter at inference size 224" in capsys.readouterr().err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["counters"].get("quality_changes", 0) >= 0
    assert report["written"] > 0

"""Several models loaded for one preview: which one computes, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from stream.channel import Channel, Closed
from stream.cli import invoke
from stream.errors import ConfigError
from stream.frames import DepthKind, Frame
from stream.infer.engine import Engine
from stream.multi_inference import Switching
from tests.tiny_model import frame, loaded


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
        (["-m", "starter", "-m", "dav2-small"], "several models are for a preview to switch between"),
        (["-m", "starter", "-m", "starter", "--preview"], "a model is named twice"),
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
    from stream.config import from_options
    from stream.jobs import _common_kind

    mixed = engines(DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY)
    with pytest.raises(ConfigError, match="metres for one model and disparity for another"):
        _common_kind(from_options("0", {"range": "1:5"}), mixed)
    assert _common_kind(from_options("0", {}), mixed) is DepthKind.METRIC_DEPTH
    for engine in mixed:
        engine.close()

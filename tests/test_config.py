"""The models of the config: values, limits, and what they refuse."""

import ast
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import config
from stream.cli import configfile
from stream.errors import ConfigError
from stream.jobs.options import OPTIONS, all_keys, build, from_options
from tests.support.paths import REPOSITORY

CONFIGS = REPOSITORY / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_load_and_round_trip(path: Path, tmp_path: Path) -> None:
    loaded = build(configfile.load(path), where=path.name)
    (tmp_path / "again.yaml").write_text(configfile.to_yaml(loaded))
    assert build(configfile.load(tmp_path / "again.yaml"), where="again") == loaded


@settings(deadline=None)  # a busy machine
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "batch": st.integers(1, 256),
            "alpha": st.floats(0, 1),
            "range": st.sampled_from(["frame", "ema", "0:1", "-2.5:7"]),
            "start": st.floats(0, 100),
            "save": st.lists(st.sampled_from(["npy", "png16", "pfm", "exr"])).map(tuple),
            "fps": st.floats(0.1, 240),
            "camera_size": st.tuples(st.integers(1, 9999), st.integers(1, 9999)),
            "layout": st.sampled_from(["side", "depth", "overlay"]),
            "output": st.text("abc/._- é", min_size=1),
            "audio": st.booleans(),
            "live": st.sampled_from(["auto", "live", "file", True, False]),
            "model": st.lists(st.sampled_from(["starter", "dav2-small"]), min_size=1),
        },
    )
)
def test_any_config_survives_yaml(options: dict[str, object]) -> None:
    made = from_options("clip.mp4", options)
    assert build(yaml.safe_load(configfile.to_yaml(made)), where="yaml") == made


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rendr": {}}, "rendr; did you mean render?"),
        ({"render": {"colourmap": "gray"}}, "render.colourmap; did you mean render.colormap?"),
        ({"colormap": "gray"}, "colormap; did you mean render.colormap?"),
        ({"inference": {"batch": 0}}, "file.yaml: inference.batch: must be 1 or more, got 0"),
        ({"inference": {"batch": 1.5}}, "inference.batch: must be a whole number, got 1.5"),
        (
            {"inference": {"precision": "fp8"}},
            "inference.precision: unknown value, got 'fp8' (allowed: auto, fp32, bf16",
        ),
        ({"render": {"alpha": 2}}, "render.alpha: must be 1 or less, got 2"),
        ({"render": {"alpha": "much"}}, "render.alpha: must be a number, got 'much'"),
        ({"render": 5}, "render: must hold keys of its own, got 5"),
        ({"render": {"range": "nan:1"}}, "render.range: LO:HI must be finite"),
        ({"render": {"range": "2:1"}}, "LO < HI"),
        ({"render": {"range": "often"}}, "must be frame, ema or LO:HI"),
        ({"model": {"offline": "perhaps"}}, "model.offline: must be true or false, got 'perhaps'"),
        ({"capture": {"fps": 0}}, "capture.fps: must be more than 0, got 0"),
        ({"capture": {"fps": "nan"}}, "capture.fps: must be "),
        ({"capture": {"start": 5, "end": 4}}, "capture.end: must be after start (5 s), got 4"),
        ({"capture": {"start": "1:xx"}}, "must be seconds or"),
        ({"capture": {"camera_size": "big"}}, "WIDTHxHEIGHT"),
        ({"output": {"save": "npy,tga"}}, "tga"),
        ({"output": {"serve_token": "short"}}, "output.serve_token: must have at least 8 characters"),
    ],
)
def test_wrong_keys_and_values_are_refused_by_path(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(values, where="file.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1:30", 90), ("01:02:03.5", 3723.5), ("0", 0), ("00:00:00.040", 0.04)]
)
def test_times(text: str, seconds: float) -> None:
    assert config.parse_time(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "-1", "nan", "1:-2"])
def test_bad_times(text: str) -> None:
    with pytest.raises(ValueError, match="must be seconds"):
        config.parse_time(text)


def test_formats_named_twice_are_written_once() -> None:
    assert from_options("x", {"save": "npy,npy,pfm"}).output.save == ("npy", "pfm")


def test_a_switch_may_be_true_or_false() -> None:
    values = {"output": {"preview": True, "serve": True}, "capture": {"live": False}}
    built = build(values, where="test")
    assert (built.output.preview, built.output.serve, built.capture.live) == ("window", config.DEFAULT_SERVE, "file")
    built = build({"output": {"preview": False, "serve": False}}, where="test")
    assert (built.output.preview, built.output.serve) == ("off", None)


def test_no_number_of_an_option_is_written_a_second_time() -> None:
    """A parameter that is named like a key takes its default from the config, or has none."""
    names = {key.rpartition(".")[2] for key in all_keys()} | set(OPTIONS)
    found = []
    for path in sorted((REPOSITORY / "stream").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            pairs: list[tuple[str, ast.expr | None]] = []
            if isinstance(node, ast.FunctionDef):
                arguments = node.args
                positional = [*arguments.posonlyargs, *arguments.args]
                last = zip(reversed(positional), reversed(arguments.defaults), strict=False)
                pairs += [(one.arg, value) for one, value in last]
                pairs += [(a.arg, value) for a, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                pairs.append((node.target.id, node.value))
            for name, value in pairs:
                is_number = isinstance(value, ast.Constant) and type(value.value) in (int, float)
                if name in names and is_number:
                    found.append(f"{path.name}: {name} = {ast.unparse(value or ast.Constant(None))}")
    assert found == []

"""The models of the config: values, limits, and what they refuse."""

import ast
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream import config
from stream.cli import configfile
from stream.errors import ConfigError, UsageError
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
            "png16_unit": st.floats(1e-6, 1000),
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
@example({"output": "-"})
@example({"output": "./-"})
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
        ({"render": {"range": "often"}}, "must be frame, ema, clip or LO:HI"),
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


FLOATS = [
    key
    for key in sorted(all_keys())
    for section, _, name in [key.partition(".")]
    for field in [getattr(config.Config.model_fields[section].annotation, "model_fields", {}).get(name)]
    if field is not None and float in (field.annotation, *get_args(field.annotation))
]


@pytest.mark.parametrize("key", FLOATS)
def test_a_number_that_is_not_finite_is_refused_whatever_takes_numbers(key: str) -> None:
    section, _, name = key.partition(".")
    for number in (float("nan"), float("inf"), -float("inf")):
        if key == "capture.reconnect_for_s" and number > 0:
            continue  # for ever
        with pytest.raises(ConfigError):
            build({section: {name: number}}, where="f")
        with pytest.raises(ConfigError):
            build({section: {name: str(number)}}, where="f")


def test_durations_and_rates_that_no_clock_can_count_are_refused() -> None:
    for name in ("start", "end", "max_seconds", "open_timeout_s", "read_timeout_s"):
        with pytest.raises(ConfigError, match=r"1e\+09 seconds or less"):
            build({"capture": {name: 1e300}}, where="f")
    for name in ("fps", "camera_fps"):
        with pytest.raises(ConfigError, match=r"must be 1e-09 to 1e\+09"):
            build({"capture": {name: 1e-300}}, where="f")


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


def test_a_file_url_keeps_what_other_urls_cut_off() -> None:
    assert from_options(None, {"output": "file:///tmp/clip%20#1?.mp4"}).output.path == Path("/tmp/clip #1?.mp4")
    with pytest.raises(UsageError, match="another machine"):
        from_options(None, {"output": "file://other/x.mp4"})


def test_arrays_are_taken_as_lists() -> None:
    taken = from_options(
        None, {"range": np.array([1, 2]), "camera_size": np.array([640, 480]), "model": np.array(["a", "b"])}
    )
    assert (taken.render.range, taken.capture.camera_size) == ("1:2", (640, 480))
    assert (taken.model.name, taken.model.also) == ("a", ("b",))


def test_a_refusal_names_options_as_they_are_typed() -> None:
    with pytest.raises(ConfigError) as caught:
        config.Config.model_validate({"output": {"path": [1]}})
    assert str(caught.value).startswith("Config: output.path: ")
    with pytest.raises(ConfigError, match="names no model"):
        from_options(None, {"model": []})


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("mm", 0.001), ("cm", 0.01), ("0.25mm", 0.00025), (" 2 mm ", 0.002), ("0.0002", 0.0002), ("1m", 1),
        (".5cm", 0.005), ("100um", 0.0001), ("1e-4", 0.0001),
    ],
)  # fmt: skip
def test_a_length_has_a_unit_or_is_in_metres(text: str, metres: float) -> None:
    assert config.parse_length(text) == metres
    assert from_options("x.mp4", {"png16_unit": text}).output.png16_unit == metres


@pytest.mark.parametrize("text", ["", "inch", "mm mm", "1,5mm", "-1mm", "0", "nan", "inf", "1e-9", "2000m", "٣mm"])
def test_other_lengths_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^png16_unit=.*(must be a length such as|must be 1e-06 or more|must be 1000 or)"
    ):
        from_options("x.mp4", {"png16_unit": text})


@pytest.mark.parametrize("report", ["s3://bucket/r.json", "https://host/r.json"])
def test_a_report_is_a_local_file(report: str) -> None:
    with pytest.raises(ConfigError, match="must be a file on this machine, not a URL"):
        from_options(None, {"report": report})
    assert from_options(None, {"report": "file:///tmp/r%201.json"}).output.report == Path("/tmp/r 1.json")

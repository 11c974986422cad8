"""Config: keys, options, round trips, and errors that name the nearest right key."""

import inspect
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stream import config
from stream.cli import main as cli
from stream.errors import ConfigError
from tests.support.paths import REPOSITORY

CONFIGS = REPOSITORY / "configs"


def test_every_key_has_an_option_and_back() -> None:
    assert sorted(config.OPTION_KEYS.values()) == sorted(set(config.all_keys()) - {"source"})
    parameters = {name.rstrip("_") for name in inspect.signature(cli.run).parameters}
    assert parameters - {"source", "config", "set", "print_config", "json", "debug"} == set(config.OPTION_KEYS) - {
        "also"
    }, "also is -m's second value on"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_load_and_round_trip(path: Path, tmp_path: Path) -> None:
    loaded = config.build(config.load(path), where=path.name)
    (tmp_path / "again.yaml").write_text(config.to_yaml(loaded))
    assert config.build(config.load(tmp_path / "again.yaml"), where="again") == loaded


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
            "live": st.sampled_from(["auto", "live", "file"]),
        },
    )
)
def test_any_config_survives_yaml(options: dict[str, object]) -> None:
    made = config.from_options("clip.mp4", options)
    assert config.build(yaml.safe_load(config.to_yaml(made)), where="yaml") == made


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rendr": {}}, "rendr; did you mean render?"),
        ({"render": {"colourmap": "gray"}}, "render.colourmap; did you mean render.colormap?"),
        ({"colormap": "gray"}, "colormap; did you mean render.colormap?"),
        ({"inference": {"batch": 0}}, "inference.batch"),
        ({"inference": {"precision": "fp8"}}, "inference.precision"),
        ({"render": {"range": "nan:1"}}, "render.range: LO:HI must be finite"),
        ({"render": {"range": "2:1"}}, "LO < HI"),
        ({"render": {"range": "often"}}, "must be frame, ema or LO:HI"),
        ({"capture": {"start": 5, "end": 4}}, "must be after start"),
        ({"capture": {"start": "1:xx"}}, "must be seconds or"),
        ({"capture": {"camera_size": "big"}}, "WIDTHxHEIGHT"),
        ({"output": {"save": "npy,tga"}}, "tga"),
    ],
)
def test_wrong_keys_and_values_are_refused_by_path(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(values, where="file.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_assignments_are_typed_and_checked() -> None:
    values: dict[str, object] = {"inference": {"batch": 2}}
    config.apply_assignments(values, ["inference.batch=8", "output.save=[npy, pfm]", "capture.start=1:30"])
    made = config.build(values, where="--set")
    assert (made.inference.batch, made.output.save, made.capture.start) == (8, ("npy", "pfm"), 90.0)
    with pytest.raises(ConfigError, match=r"did you mean inference\.batch"):
        config.apply_assignments(values, ["inference.bach=8"])
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        config.apply_assignments(values, ["inference.batch"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1:30", 90), ("01:02:03.5", 3723.5), ("0", 0), ("00:00:00.040", 0.04)]
)
def test_times(text: str, seconds: float) -> None:
    assert config.parse_time(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "-1", "nan", "1:-2"])
def test_bad_times(text: str) -> None:
    with pytest.raises(ValueError, match="must be seconds"):
        config.parse_time(text)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        config.load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="must hold sections"):
        config.load(tmp_path / "list.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert config.load(tmp_path / "empty.yaml") == {}


def test_unknown_option_of_the_api_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean colormap"):
        config.from_options("x.mp4", {"colourmap": "gray"})


def test_yaml_is_read_as_version_1_2(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("source: 0\nrender: {range: 1:30}\noutput: {preview: off, path: 2024, audio: false}\n")
    built = config.build(config.load(path), where="test")
    assert (built.source, built.render.range) == ("0", "1:30")
    assert (built.output.preview, built.output.path, built.output.audio) == ("off", Path("2024"), False)
    values: dict[str, object] = {}
    config.apply_assignments(values, ["output.preview=off", "source=0", "capture.fps=.5", "render.range=-1:2"])
    built = config.build(values, where="test")
    assert (built.output.preview, built.source, built.capture.fps) == ("off", "0", 0.5)
    assert built.render.range == "-1:2"


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("render:\n  alpha: 0.5\nrender:\n  alpha: 0.6\n")
    with pytest.raises(ConfigError, match="render stands twice"):
        config.load(path)


def test_formats_named_twice_are_written_once() -> None:
    assert config.from_options("x", {"save": "npy,npy,pfm"}).output.save == ("npy", "pfm")

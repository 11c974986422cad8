"""A network is found in a file wherever it lies, by the names and sizes of its tensors."""

import json
from collections.abc import Callable
from functools import cache
from itertools import permutations, product

import pytest
import torch
from torch import Tensor

from stream.models import catalog, registry
from stream.models.weights.prefixes import shift, sizes_of
from stream.models.weights.read import wanted_of
from stream.models.weights.unwrap import unwrap
from stream.notes import Notes, collected
from tests.support.paths import DATA

Tensors = dict[str, Tensor]
TORCH_ROWS = [spec.name for spec in catalog.MODELS if registry.runtime_of(spec) == "torch"]


@cache
def wanted(name: str) -> dict[str, torch.Size]:
    """Of the official file where its manifest is at hand: that is faster than building the network."""
    manifest = DATA / "models" / f"{name}.json"
    if manifest.is_file():
        entries = json.loads(manifest.read_text())["state_dict"]
        return {key: torch.Size(shape) for key, shape, *_ in entries}
    return dict(wanted_of(registry.build(registry.find(name))))


def tensors(name: str, prefix: str = "") -> Tensors:
    return {prefix + key: torch.empty(size, device="meta") for key, size in wanted(name).items()}


NESTS: list[Callable[[object], object]] = [
    lambda x: x,
    lambda x: {"net": x},
    lambda x: {"weights": x, "epoch": 3},
    lambda x: {"my_own_key": x, "hyper_parameters": {"lr": 0.1}},
    lambda x: {"checkpoint": {"ema": {"module": x}}, "mean": torch.zeros(3)},
    lambda x: {"state_dict": x, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    lambda x: {"a": {"weight": torch.zeros(3)}, "params": x, "model": {"bias": torch.zeros(3)}},
]
PREFIXES = ["", "module.", "model.", "net._orig_mod.", "a.b.c.d.", "core.core.", "pretrained.", "encoder.model.", "0."]


def assert_found(name: str, nest: Callable[[object], object], prefix: str) -> None:
    whole = tensors(name)
    inside = {f"{prefix}{key}": value for key, value in whole.items()}
    found = unwrap(nest(inside), where="a.pt", wanted=wanted(name))
    assert found.keys() == whole.keys(), (nest, prefix)
    assert all(found[key] is value for key, value in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH_ROWS)
def test_every_row_is_found_in_every_nest_and_under_every_prefix(name: str) -> None:
    for nest, prefix in product(NESTS, PREFIXES):
        assert_found(name, nest, prefix)


@pytest.mark.parametrize("name", TORCH_ROWS)
def test_every_row_is_found_in_some_nests_and_under_some_prefixes(name: str) -> None:
    """A few for each row, others for the next one: together all of both."""
    number = TORCH_ROWS.index(name)
    for step in range(3):
        assert_found(name, NESTS[(number + step) % len(NESTS)], PREFIXES[(number + 2 * step) % len(PREFIXES)])


@pytest.mark.parametrize("name", TORCH_ROWS)
def test_every_row_is_found_beside_what_is_not_of_the_network(name: str) -> None:
    whole = tensors(name)
    content = {**tensors(name, "depth."), "loss.0.weight": torch.zeros(3), "steps": torch.zeros(())}
    with collected(Notes()) as notes:
        assert unwrap(content, where="a.pt", wanted=wanted(name)).keys() == whole.keys()
    assert notes.said == ["a.pt: uses depth; the file also holds loss.*, steps.*"]


@pytest.mark.parametrize("name", TORCH_ROWS)
def test_the_inner_network_alone_is_found(name: str) -> None:
    outer = dict(tensors(name, "model.net."))
    sizes = {key: value.shape for key, value in outer.items()}
    for saved in ("", "net.", "model.net."):
        found = unwrap(tensors(name, saved), where="a.pt", wanted=sizes)
        assert found.keys() == outer.keys()


SIZES = [f"depth_anything_v2_vit{letter}" for letter in "sbl"]


@pytest.mark.parametrize(("name", "other"), list(permutations(SIZES, 2)))
def test_of_two_sizes_the_wanted_one_is_taken(name: str, other: str) -> None:
    beside = [
        {"teacher": tensors(other), "student": tensors(name)},
        {"model": tensors(other), "mine": {"weights": tensors(name, "net.")}},
        {**tensors(other, "a."), **tensors(name, "student.")},
        {**tensors(other), "mine": tensors(name)},
    ]
    for content in beside:
        found = unwrap(content, where="a.pt", wanted=wanted(name))
        assert {key: value.shape for key, value in found.items()} == wanted(name)


def test_of_equals_the_usual_key_is_taken_and_the_others_are_noted() -> None:
    name = "depth_anything_v2_vits"
    ema, last = tensors(name), tensors(name)
    with collected(Notes()) as notes:
        found = unwrap({"last": last, "params_ema": ema, "D": {"w": torch.ones(1)}}, where="a", wanted=wanted(name))
    assert all(found[key] is value for key, value in ema.items())
    assert notes.said == ["a: uses params_ema; the file also holds last"]


def test_of_networks_in_a_list_the_wanted_one_is_taken() -> None:
    small, base = (tensors(name) for name in SIZES[:2])
    with collected(Notes()) as notes:
        for content in ([base, small], {"models": (base, small, [base]), "epoch": 3}):
            found = unwrap(content, where="a", wanted=wanted(SIZES[0]))
            assert all(found[key] is value for key, value in small.items())
        unwrap([small, 3, dict(small)], where="a", wanted=wanted(SIZES[0]))
    assert notes.said == ["a: uses 0; the file also holds 2"]


def test_another_network_keeps_the_names_that_it_has() -> None:
    found = shift(sizes_of({"a.weight": torch.ones(2), "b.weight": torch.ones(3)}), wanted("starter"))
    assert found.score < len(wanted("starter"))
    given = {"net.x.weight": torch.ones(2), "net.y.weight": torch.ones(3)}
    assert unwrap(given, where="a", wanted=wanted("starter")).keys() == {"x.weight", "y.weight"}

"""Checkpoints that were made to do harm: each is one line, in bounded time and memory, and no code runs."""

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stream.errors import ModelError
from stream.models import registry
from stream.models.catalog import STARTER
from stream.models.weights import locate, pickled, unwrap
from stream.models.weights.locate import find_file, sha256
from stream.models.weights.read import fill, read_state_dict
from stream.notes import Notes, collected

MOST_BYTES = 60_000_000
"""Of Python's memory, at any time of a reading."""


def refusal(path: Path) -> str:
    """The one line about a file that is not read, after little work."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            read_state_dict(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def archive(path: Path, program: bytes, *, records: Mapping[str, bytes] = {}, packed: bool = False) -> Path:
    """A zip archive with the records of torch.save and a pickle of ours."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as made:
        made.writestr("archive/data.pkl", b"\x80\x02" + program)
        for name, content in records.items():
            made.writestr(f"archive/{name}", content)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


GIGABYTES = number(6 * 10**9)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"c__builtin__\nbytearray\n" + GIGABYTES + b"\x85R.", id="bytes"),
        pytest.param(b"ctorch\nFloatStorage\n" + GIGABYTES + b"\x85R.", id="storage"),
        pytest.param(b"ctorch\nTensor\n" + GIGABYTES + b"\x85R.", id="tensor"),
        pytest.param(
            b"ccollections\nCounter\n" + b"c__builtin__\nbytearray\n" + GIGABYTES + b"\x85R\x85R.", id="count"
        ),
        pytest.param(b"]q\x00" + b"h\x00a" * 1000 + b"0}" + text("model") + b"h\x00s.", id="lists"),
        pytest.param(b"N\x85q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"0}h\x00Ns.", id="a key that takes for ever"),
        pytest.param(b"r\xff\xff\xff\x7f" + b"}.", id="a huge memo"),
        pytest.param(b"B\xff\xff\xff\x7f", id="bytes that are not there"),
        pytest.param(b"(" * 100_000 + b"}.", id="marks"),
        pytest.param(b"}q\x00" + b"(lq\x01" + b"h\x01" + b"\x85" * 100_000 + b"0h\x00.", id="deep tuples"),
    ],
)
def test_a_pickle_that_would_fill_the_memory(tmp_path: Path, program: bytes) -> None:
    refusal(archive(tmp_path / "a.pt", program))


def legacy(path: Path, program: bytes, *, keys: bytes = b"].", about: bytes = b"}.") -> Path:
    """A file in the older format with two pickles of ours."""
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001)]
    path.write_bytes(b"".join([*head, b"\x80\x02" + about, b"\x80\x02" + program, b"\x80\x02" + keys]))
    return path


LONG = text("x" * 3_000_000)


def test_nothing_is_hashed_or_compared_before_its_type_and_length_are_known(tmp_path: Path) -> None:
    nested = b"]" + b")" + b"2\x86" * 60 + b"a."  # a hash of 2⁶⁰ steps
    assert "is damaged" in refusal(legacy(tmp_path / "a.pt", b"}.", keys=nested))
    twice = LONG + b"q\x000" + LONG + b"q\x010"  # equal and not the same: each comparison reads both
    assert "is damaged" in refusal(
        legacy(tmp_path / "b.pt", b"}.", keys=twice + b"](h\x00" + b"h\x01" * 90_000 + b"e.")
    )
    program = twice + b"}h\x00Ns" + b"h\x01Ns" * 90_000 + b"."
    assert "a key of more than 4,096 characters" in refusal(archive(tmp_path / "c.pt", program))
    equal = b"}" + b"".join(b"p%d\n" % (index * (2**61 - 1)) for index in range(60_000)) + b"."  # equal hashes
    assert "is damaged" in refusal(archive(tmp_path / "d.pt", equal))


def test_arguments_are_not_copied_or_cut_into_rows(tmp_path: Path) -> None:
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x01tQ"
    name = b"ctorch._utils\n_rebuild_tensor_v2\nq\x000"
    many = b"(" + storage + b"K\x00))\x89" + b"N" * 100_000 + b"tq\x010"
    path = archive(tmp_path / "a.pt", name + many + b"h\x00h\x01R0" * 90_000 + b"}.", records={"data/0": bytes(4)})
    assert "is damaged" in refusal(path)
    rows = b"h\x00(" + storage + b"K\x00" + number(2**40) + b"\x85K\x00\x85\x89}tR"
    path = archive(
        tmp_path / "b.pt", name + b"ccollections\nOrderedDict\n(" + rows + b"l\x85R.", records={"data/0": bytes(4)}
    )
    assert "is damaged" in refusal(path)


def test_calls_within_calls_are_bounded(tmp_path: Path) -> None:
    start = b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00ccollections\nOrderedDict\nq\x01(h\x01N)Ntq\x03"
    for depth, is_read in ((2, True), (1, True), (3, False), (800, False)):
        nested = b"(h\x00Nh\x03Ntq\x03" * (depth - 1)
        path = archive(tmp_path / "a.pt", start + nested + b"h\x00h\x03R.")
        assert ("contains no tensors" if is_read else "is damaged") in refusal(path)


def test_work_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MAX_STEPS", 1000)
    many = b"]q\x00(" + b"N" * 500 + b"e" + b"ccollections\nOrderedDict\nh\x00\x85R0" * 90
    for program in (b"N0" * 600 + b"}.", many + b"."):
        assert "its pickle has more than 1,000 steps" in refusal(archive(tmp_path / "a.pt", program))
    monkeypatch.setattr("stream.models.weights.archive.MAX_BYTES", 1000)
    assert "its pickle has more than" in refusal(archive(tmp_path / "b.pt", b"N0" * 600 + b"}."))


@pytest.mark.parametrize("suffix", ["", "model"])
def test_dictionaries_that_contain_each_other_are_counted_once(tmp_path: Path, suffix: str) -> None:
    names = b"".join(text(f"{suffix}{index}") + b"h\x00" for index in range(3000))  # 3000⁵ paths lead nowhere
    assert "contains no tensors" in refusal(archive(tmp_path / "a.pt", b"}q\x00(" + names + b"uh\x00."))


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n" + text("touch ran") + b"\x85R.",
        b"cbuiltins\ngetattr\nctorch\nTensor\n" + text("__dict__") + b"\x86R.",
        b"ctorch.serialization\nload\n" + text("a.pt") + b"\x85R.",
        b"(" + text("touch ran") + b"iposix\nsystem\n.",
        b"\x8c\x05posix\x8c\x06system\x93" + text("touch ran") + b"\x85R.",
        b"\x8c\x05torch\x8c\x08load.sav\x93.",
        b"ctorch\nhub.load\n.",
        b"\x82\x01.",
    ],
)
def test_no_name_is_imported_or_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "__getattr__", None)  # which imports further modules
    for path in (archive(tmp_path / "zip.pt", program), legacy(tmp_path / "legacy.pt", program)):
        assert "contains code besides tensors (" in refusal(path)
    assert not (tmp_path / "ran").exists()


def packed_zip(path: Path) -> None:
    archive(path, text("x") + b"B" + (50 << 20).to_bytes(4, "little") + bytes(50 << 20) + b"0}.", packed=True)


def large_pickle(path: Path) -> None:
    archive(path, b"B" + (17 << 20).to_bytes(4, "little") + bytes(17 << 20) + b"0}.")


def long_directory(path: Path) -> None:
    """An end record that claims a directory of 3 GB, in a file that seems to have as many."""
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        file.seek(3 << 30)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, (3 << 30) - 8, 8, 0))


def header(path: Path, content: bytes) -> None:
    path.write_bytes(len(content).to_bytes(8, "little") + content)


def many_tensors(path: Path) -> None:
    one = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header(path, json.dumps({f"k{index}": one for index in range(21_000)}).encode())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (packed_zip, "its records are compressed or encrypted (archive/data.pkl)"),
        (large_pickle, "its pickle has more than 16 MB"),
        (long_directory, "its directory has more than 8 MB"),
        (many_tensors, "it holds more than 20,000 tensors"),
        (lambda path: header(path, b"{" + b" " * 20_000_000 + b"}"), "its header has more than 10 MB"),
        (lambda path: header(path, b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "is damaged"),
        (os.mkfifo, "cannot be read: it is no file"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read: it is no file"),
    ],
)
def test_what_is_too_large_is_not_opened(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "a.pt")
    assert message in refusal(tmp_path / "a.pt")


def saved(path: Path, content: object, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def expanded(*sides: int) -> Tensor:
    return torch.zeros(1).expand(sides)


ATTENTION = "backbone.encoder.layer.0.attention.attention"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        {"x": expanded(10**6, 10**6)},
        {"head.conv3.weight": torch.zeros(1), "backbone.embeddings.cls_token": expanded(1, 4 * 10**9)},
        {f"{ATTENTION}.{name}.weight": expanded(40_000, 40_000) for name in ("query", "key", "value")}
        | {"head.conv3.weight": torch.zeros(1)},
    ],
    ids=["alone", "as a width", "joined"],
)
def test_a_tensor_larger_than_the_file_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, Tensor], zipped: bool
) -> None:
    monkeypatch.setattr(registry.catalog, "MODELS", (STARTER,))  # what else it fits takes long to find
    assert "its tensors are many times larger than the file" in refusal(
        saved(tmp_path / "a.pt", content, zipped=zipped)
    )
    with pytest.raises(ModelError, match="does not fit this model"):
        registry.load(STARTER, weights=tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.to_sparse(), "it holds a sparse tensor"),
        (lambda v: v.to("meta"), "holds 1 saved without values: 0.weight"),
        (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "it holds a quantised tensor"),
        (lambda v: torch.nested.nested_tensor([v, v]), "it holds a nested tensor"),
        (lambda v: torch._neg_view(v), "conjugated or negated"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_named(tmp_path: Path, change: Callable[[Tensor], Tensor], message: str) -> None:
    assert message in refusal(saved(tmp_path / "a.pt", {"0.weight": change(torch.ones(2, 3)), "0.bias": torch.ones(2)}))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_beside_the_network_do_not_matter(tmp_path: Path, zipped: bool) -> None:
    one = torch.ones(2, 3)
    odd = {"a": one.to_sparse(), "b": torch.nested.nested_tensor([one, one]), "c": torch._neg_view(one.clone())}
    odd["d"] = torch.quantize_per_tensor(one, 0.1, 0, torch.qint8)
    path = saved(tmp_path / "a.pt", {"model": {"weight": one}, "optimizer": odd}, zipped=zipped)
    assert torch.equal(read_state_dict(path)["weight"], one)


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_share_memory_or_lie_in_another_order_get_their_own(tmp_path: Path, zipped: bool) -> None:
    common = torch.arange(8.0)
    content = {
        "0.weight": common[:6].reshape(3, 2).t(),
        "0.bias": common[4:6],
        "1.weight": torch.tensor(3.0).expand(2, 2),
        "1.bias": common[::4].double(),
    }
    filled, path = network(), saved(tmp_path / "a.pt", content, zipped=zipped)
    fill(filled, read_state_dict(path), where="a.pt")
    given = filled.state_dict()
    assert all(torch.equal(given[key], value.float()) for key, value in content.items())
    for value in given.values():
        value.mul_(0)  # which an expanded tensor refuses, and which would change those that share its memory
        assert value.is_contiguous()
        assert value.data_ptr() % 4 == 0
    assert torch.equal(read_state_dict(path)["0.weight"], content["0.weight"])


def test_every_type_is_read_or_named(tmp_path: Path) -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        content = {"weight": torch.ones(1, 2).to(dtype), "bias": torch.ones(1)}
        fill(filled := nn.Linear(2, 1), read_state_dict(saved(tmp_path / "a.pt", content)), where="a.pt")
        assert torch.equal(filled.weight, torch.ones(1, 2))
    for dtype, what in (
        (torch.complex64, "of an unsupported type"),
        (torch.bool, "quantised"),
        (torch.int64, "quantis"),
    ):
        content = {"weight": torch.ones(1, 2).to(dtype), "bias": torch.ones(1)}
        with pytest.raises(ModelError, match=f"1 {what}.*weight"):
            fill(nn.Linear(2, 1), read_state_dict(saved(tmp_path / "a.pt", content)), where="a.pt")


def test_the_other_byte_order_is_read(tmp_path: Path) -> None:
    values = torch.arange(6.0).reshape(2, 3)
    with zipfile.ZipFile(saved(tmp_path / "a.pt", {"a": values, "b": torch.ones(2, dtype=torch.half)})) as whole:
        content = {info.filename: whole.read(info) for info in whole.infolist()}
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as made:
        for name, data in content.items():
            item = {"0": 4, "1": 2}.get(name.rpartition("/data/")[2], 0)
            swapped = b"".join(data[at : at + item][::-1] for at in range(0, len(data), item)) if item else data
            made.writestr(name, b"big" if name.endswith("byteorder") else swapped)
    read = read_state_dict(tmp_path / "b.pt")
    assert torch.equal(read["a"], values)
    assert torch.equal(read["b"], torch.ones(2, dtype=torch.half))


def tensor_program(*, numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    def many(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(number(value) for value in values) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(numel) + b"tQ"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + many(size) + many(stride) + b"\x89}tR"
    return b"}" + text("a") + made + b"s."


def test_the_byte_order_of_a_storage_is_changed_once(tmp_path: Path) -> None:
    one, other = (tensor_program(numel=size, offset=0, size=(1,), stride=(1,)) for size in (4, 3))
    records = {"byteorder": b"big", "data/0": b"\0\0\0\1" * 4}
    for second, is_read in ((one, True), (other, False)):
        program = one[:-1] + second[1:].replace(text("a"), text("b"), 1)
        path = archive(tmp_path / "a.pt", program, records=records)
        if is_read:
            assert {int(value.view(torch.int32)) for value in read_state_dict(path).values()} == {1}
        else:
            assert "is damaged" in refusal(path)


@pytest.mark.parametrize(
    ("numel", "offset", "size", "stride"),
    [
        (5, 0, (5,), (1,)),  # the record holds four
        (2**62, 0, (2**62,), (1,)),
        (4, 1, (4,), (1,)),
        (4, 0, (2, 2), (3, 1)),
        (4, 0, (4,), (-1,)),
        (4, -1, (4,), (1,)),
        (4, 0, (2**63, 2**63), (0, 0)),
        (4, 0, (2,) * 100, (0,) * 100),
        (4, 0, (2, 2), (1,)),
    ],
)
def test_a_tensor_outside_of_its_storage_is_damage(
    tmp_path: Path, numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    program = tensor_program(numel=numel, offset=offset, size=size, stride=stride)
    assert "is damaged" in refusal(archive(tmp_path / "a.pt", program, records={"data/0": bytes(16)}))
    sound = tensor_program(numel=4, offset=0, size=(4,), stride=(1,))
    assert read_state_dict(archive(tmp_path / "b.pt", sound, records={"data/0": bytes(16)}))["a"].shape == (4,)


def test_names_and_their_number_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content: dict[str, object] = {"a" * 600: torch.ones(1)}
    assert "name has more than 500 characters" in refusal(saved(tmp_path / "a.pt", content))
    content = {f"{'n' * 450}{index}": {"w": torch.ones(1)} for index in range(30)}
    with collected(Notes()) as notes:
        read_state_dict(saved(tmp_path / "b.pt", content))
    assert notes.said[0].endswith(" and 26 more")
    assert len(notes.said[0]) < 3000
    monkeypatch.setattr(unwrap, "MAX_TENSORS", 2)
    assert "holds 3 tensors, more than any" in refusal(saved(tmp_path / "c.pt", {k: torch.ones(1) for k in "abc"}))


def test_a_file_too_large_for_the_model_is_not_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "sha256", None)
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match=r"has 1099\.5 GB, and a checkpoint of starter at most \d+ MB"):
        find_file(STARTER, path)


def test_how_an_unverified_pickle_is_read_is_said(tmp_path: Path) -> None:
    tensors = load_file(find_file(STARTER).path)
    for path in (saved(tmp_path / "a.pth", tensors), saved(tmp_path / "b.pth", tensors, zipped=False)):
        with collected(Notes()) as notes:
            registry.load(STARTER, weights=path)
        assert notes.said == [
            f"{path}: not the published file (sha256 {sha256(path)})",
            f"{path}: read as data, so that no code in it is run; it is not verified",
        ]
    save_file(tensors, tmp_path / "c.safetensors", metadata={"by": "me"})
    with collected(Notes()) as notes:
        registry.load(STARTER, weights=tmp_path / "c.safetensors")
        published = saved(tmp_path / "d.pth", tensors)
        weights = replace(STARTER.weights, sha256=sha256(published))
        registry.load(replace(STARTER, weights=weights), weights=published)
    assert not any("read as data" in note for note in notes.said)


def test_what_surrounds_a_network_is_read_without_being_made(tmp_path: Path) -> None:
    from collections import Counter, OrderedDict

    around = {
        "model": OrderedDict(weight=nn.Parameter(torch.ones(2)), bias=torch.zeros(2)),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.99), "lr": 1e-3}]},
        "scheduler": {"milestones": Counter([3, 5]), "last": 2**70},
        "misc": [torch.Size([1, 2]), torch.device("cpu"), torch.float16, {1, 2}, b"bytes", bytearray(b"x"), 1j, None],
    }
    for zipped in (True, False):
        read = read_state_dict(saved(tmp_path / "a.pt", around, zipped=zipped))
        assert read.keys() == {"weight", "bias"}
        assert torch.equal(read["weight"], torch.ones(2))
    content = io.BytesIO()
    torch.save(around, content, pickle_protocol=4)
    (tmp_path / "b.pt").write_bytes(content.getvalue())
    assert read_state_dict(tmp_path / "b.pt").keys() == {"weight", "bias"}


def test_a_safetensors_file_may_begin_with_the_letters_of_a_zip_archive(tmp_path: Path) -> None:
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    content = json.dumps({"weight": one}).encode().ljust(int.from_bytes(b"PK", "little"))
    header(tmp_path / "a.safetensors", content)
    with (tmp_path / "a.safetensors").open("ab") as file:
        file.write(bytes(4))
    assert torch.equal(read_state_dict(tmp_path / "a.safetensors")["weight"], torch.zeros(1))

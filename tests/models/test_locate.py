"""Where weights are found, in which order, and what is said or refused about files that are not the published ones."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from stream.errors import ModelError, UsageError
from stream.models import catalog, registry
from stream.models.catalog import STARTER
from stream.models.weights import locate
from stream.models.weights.fetch import Transfer
from stream.models.weights.locate import Checked, Place, Verdict, find_file, search, sha256, verdict
from tests.support.weights_server import CONTENT, GIT_BLOB, SHA256, Server, serving


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of a user who has nothing yet and works in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("DEPTHSTREAM_WEIGHTS", raising=False)
    monkeypatch.delenv("DEPTHSTREAM_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(locate, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def server(cache: Path) -> Iterator[Server]:
    with serving() as running:
        yield running


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        find_file(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_place_in_its_order(server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHSTREAM_WEIGHTS", str(tmp_path / "variable"))
    monkeypatch.chdir(tmp_path / "here")
    folders = [tmp_path / "option", Path("weights"), Path("checkpoints"), tmp_path / "variable", cache]
    order = [put(folder / name) for folder in folders for name in ("tiny.safetensors", "tiny.pt")]
    given = put(tmp_path / "given.pt")
    spec = server.spec()
    assert find_file(spec, given, weights_dir=folders[0]).path == given
    for path in order:
        assert find_file(spec, weights_dir=folders[0]) == Checked(path=path, sha256=SHA256)
        path.unlink()
    assert server.requests == []
    assert find_file(spec, weights_dir=folders[0]).path == cache / "tiny.pt"
    assert len(server.requests) == 1
    assert not (folders[0] / "tiny.pt").exists()


def test_who_put_it_there(server: Server, cache: Path) -> None:
    assert search(server.spec()) is None
    put(cache / "tiny.pt")
    assert getattr(search(server.spec()), "place", None) is Place.CACHE
    put(Path("weights/tiny.pt"))
    assert getattr(search(server.spec()), "place", None) is Place.USER
    assert getattr(search(STARTER), "place", None) is Place.PACKAGE


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name, **options: Path("caches") / name)
    assert locate.cache_folder() == Path("caches/depthstream/weights")


@pytest.mark.skipif(sys.platform != "linux", reason="names a variable of the XDG base directories")
def test_the_cache_follows_the_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert locate.cache_folder() == tmp_path / "depthstream" / "weights"


def test_a_home_in_the_variable_is_meant(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("DEPTHSTREAM_WEIGHTS", "~/mine")
    put(tmp_path / "mine" / "tiny.pt")
    spec = replace(STARTER, weights=replace(STARTER.weights, file="tiny.pt", packaged=False))
    assert getattr(search(spec), "path", None) == tmp_path / "mine" / "tiny.pt"


def test_a_download_is_hashed_once_and_found_the_next_time(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256(path)

    monkeypatch.setattr(locate, "sha256", counted)
    transfers: list[Transfer] = []
    spec = server.spec(licence="CC-BY-NC-4.0")
    first = find_file(spec, on_progress=transfers.append)
    assert first.sha256 == SHA256
    assert any("CC-BY-NC-4.0" in note for note in notes)
    assert transfers[-1].done_bytes == len(CONTENT)
    assert hashed == []
    assert find_file(spec) == Checked(path=cache / "tiny.pt", sha256=SHA256)
    assert hashed == [cache / "tiny.pt"]
    assert len(server.requests) == 1


def test_what_another_process_fetched_is_checked_too(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "search", lambda *_arguments, **_options: None)  # it came after the search
    put(cache / "tiny.pt", b"damaged")
    assert "is damaged" in refusal(server.spec())
    put(cache / "tiny.pt")
    assert find_file(server.spec()).sha256 == SHA256
    assert server.requests == []


def test_a_damaged_download_is_refused(server: Server, cache: Path) -> None:
    path = put(cache / "tiny.pt", b"damaged")
    error = refusal(server.spec())
    assert error == (
        f"{path}: is damaged: its sha256 is {sha256(path)} instead of the published {SHA256}; "
        "`depthstream weights get tiny` downloads it again"
    )


def test_a_file_of_the_users_own_is_used_and_said(
    server: Server, cache: Path, tmp_path: Path, notes: list[str]
) -> None:
    for path, weights in ((put(Path("weights/tiny.pt"), b"mine"), None), (put(tmp_path / "x.pt", b"mine"), "x.pt")):
        used = find_file(server.spec(), tmp_path / weights if weights else None)
        assert used.path == path
        assert notes == [f"{path}: not the published file (sha256 {sha256(path)})"]
        notes.clear()
    find_file(server.spec(sha256=None))
    assert notes == []


def test_a_git_blob_is_compared_where_no_sha256_is_known(server: Server, cache: Path, notes: list[str]) -> None:
    spec = server.spec(sha256=None, git_blob=GIT_BLOB)
    path = put(cache / "tiny.pt")
    assert find_file(spec) == Checked(path=path, sha256=SHA256)
    assert verdict(spec, path, SHA256) is Verdict.PUBLISHED
    assert notes == []
    put(path, b"damaged")  # `printf damaged | git hash-object --stdin`
    assert f"its git blob is 41aaf6536c40788a9d03437fd0e5f372a5e1d76a instead of the published {GIT_BLOB}" in refusal(
        spec
    )
    given = put(cache.parent / "mine.pt", b"mine")
    assert find_file(spec, given).path == given
    assert notes == [f"{given}: not the published file (sha256 {sha256(given)})"]


def test_a_converted_file_in_the_cache_is_no_damage(server: Server, cache: Path, notes: list[str]) -> None:
    path = put(cache / "tiny.safetensors", b"converted")
    find_file(server.spec())
    assert notes == [f"{path}: not the published file (sha256 {sha256(path)})"]


@pytest.mark.parametrize(
    ("name", "digest", "published", "expected"),
    [
        ("tiny.pt", SHA256, SHA256, Verdict.PUBLISHED),
        ("renamed.pt", SHA256, SHA256, Verdict.PUBLISHED),
        ("tiny.pt", "0" * 64, SHA256, Verdict.DIFFERENT),
        ("tiny.safetensors", "0" * 64, SHA256, Verdict.UNVERIFIED),
        ("tiny.pt", SHA256, None, Verdict.UNVERIFIED),
    ],
)
def test_verdicts(name: str, digest: str, published: str | None, expected: Verdict) -> None:
    weights = replace(STARTER.weights, file="tiny.pt", sha256=published)
    assert verdict(replace(STARTER, weights=weights), Path(name), digest) is expected


@pytest.mark.parametrize("variable", [None, "1", "true"])
def test_offline_fetches_nothing(
    server: Server, cache: Path, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("DEPTHSTREAM_OFFLINE", variable)
    error = refusal(server.spec(), offline=variable is None)
    assert error == (
        "tiny: the weights (tiny.pt) are missing, and downloads are disabled (--offline or DEPTHSTREAM_OFFLINE); "
        f"download {server.url} by hand and put it into {cache}, or pass it with --weights"
    )
    assert server.requests == []
    put(cache / "tiny.pt")
    assert find_file(server.spec(), offline=True).path == cache / "tiny.pt"


@pytest.mark.parametrize("variable", ["", "0", "False", "no"])
def test_the_variable_can_say_no(server: Server, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPTHSTREAM_OFFLINE", variable)
    assert find_file(server.spec()).sha256 == SHA256


@pytest.mark.parametrize("offline", [True, False])
def test_an_unpublished_file_has_to_be_given(server: Server, offline: bool) -> None:
    spec = replace(server.spec(), weights=replace(server.spec().weights, url=None))
    assert "if you have the file, pass it with --weights" in refusal(spec, offline=offline)


def test_what_was_named_must_be_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.pt: no such weights file"):
        find_file(server.spec(), Path("nowhere.pt"))
    for folder in (tmp_path / "nowhere", put(tmp_path / "file")):
        with pytest.raises(UsageError, match=f"{folder.name}: no such folder; check .* --weights-dir"):
            find_file(server.spec(), weights_dir=folder)


def test_a_folder_that_is_named_as_weights_is_searched_for_the_models_file(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"holds no weights of tiny \(allowed: tiny.pt.*the folder is empty"):
        find_file(server.spec(), folder)
    put(folder / "other.pt")
    with pytest.raises(UsageError, match="name the file itself"):
        find_file(server.spec(), folder)
    path = put(folder / "tiny.pt")
    assert find_file(server.spec(), folder).path == path


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: "):
        sha256(tmp_path)


def test_a_model_is_loaded_from_what_is_found(cache: Path, tmp_path: Path, notes: list[str]) -> None:
    tensors = load_file(find_file(STARTER).path)
    (tmp_path / "mine").mkdir()
    save_file(tensors, tmp_path / "mine" / "other.safetensors", metadata={"by": "me"})
    spec = replace(STARTER, weights=replace(STARTER.weights, file="other.pt", packaged=False))
    model = registry.load(spec, weights_dir=tmp_path / "mine")
    path = tmp_path / "mine" / "other.safetensors"
    assert model.weights_sha256 == sha256(path)
    assert notes == [f"{path}: not the published file (sha256 {sha256(path)})"]
    with pytest.raises(ModelError, match="downloads are disabled"):
        registry.load(spec, offline=True)


def test_another_models_published_file_is_refused_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(b"weights of a sibling: the same keys, the same shapes")
    spec, sibling = (registry.find(name) for name in ("depth_anything_v2_vits", "depth_anything_v1_vits"))
    published = replace(sibling, weights=replace(sibling.weights, sha256=sha256(file)))
    monkeypatch.setattr(catalog, "MODELS", (spec, published))
    with pytest.raises(ModelError, match=r"is not the file of depth_anything_v2_vits; use -m depth_anything_v1_vits"):
        find_file(spec, file)


def test_a_non_commercial_licence_is_said_at_use_or_refused(tmp_path: Path, notes: list[str]) -> None:
    spec = registry.find("depth_anything_v2_vitb")
    (tmp_path / spec.weights.file).write_bytes(b"weights")
    registry.files(spec, weights_dir=tmp_path)
    assert notes[0] == "depth_anything_v2_vitb.pth: its licence, CC-BY-NC-4.0, does not allow commercial use"
    with pytest.raises(
        UsageError, match=r"--commercial-only: the licence of depth_anything_v2_vitb \(CC-BY-NC-4\.0\) forbids"
    ):
        registry.files(spec, weights_dir=tmp_path, commercial_only=True)
    notes.clear()
    registry.files(STARTER, commercial_only=True)
    assert notes == []


def test_models_whose_files_have_one_name_keep_them_apart(server: Server, cache: Path, tmp_path: Path) -> None:
    one, other = (
        replace(server.spec(), name=name, weights=replace(server.spec(sha256=digest).weights, file=f"{name}/model.pt"))
        for name, digest in (("one", SHA256), ("other", None))
    )
    transfers: list[Transfer] = []
    assert find_file(one, on_progress=transfers.append).path == cache / "one" / "model.pt"
    assert transfers[-1].file == "one/model.pt"
    assert sorted(path.name for path in (cache / "one").glob("[!.]*")) == ["model.pt"]
    assert search(other) is None
    assert str((cache / "other").resolve()) in refusal(other, offline=True)

    mine = put(tmp_path / "mine" / "other" / "model.pt", b"other")
    put(tmp_path / "mine" / "model.pt", b"neither")
    assert find_file(other, weights_dir=tmp_path / "mine").path == mine
    for folder in (tmp_path / "mine", tmp_path / "mine" / "other"):
        assert find_file(other, folder).path == mine
    with pytest.raises(UsageError, match="holds no weights of one"):
        find_file(one, tmp_path / "mine")

"""The worker of a batch: what goes in comes out in its place, and whatever goes wrong is a record."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stream.batch.records import Records, entries
from stream.batch.results import Done
from stream.batch.worker import Worker
from stream.errors import StreamError
from stream.jobs.options import from_options
from stream.jobs.run import run_config
from stream.jobs.segments.rows import source_state
from stream.media import av
from tests.support.media_files import write_video
from tests.support.picture_files import save, scene

QUICK: dict[str, Any] = {"model": "starter", "input_size": 64, "device": "cpu", "backend": "torch", "threads": 1}


def worker(out: Path, **options: Any) -> Worker:
    return Worker(from_options(None, {**QUICK, "output": out, **options}), scratch="test")


def task(source: Path, output: Path, **more: Any) -> dict[str, Any]:
    return {"what": "run", "name": source.name, "source": str(source), "output": str(output), "attempt": 1, **more}


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def left_in(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in (out / ".depthstream/work").rglob("*") if path.is_file())


def test_a_clip_and_a_picture_are_what_a_run_makes_of_them(tmp_path: Path) -> None:
    clip, picture, out = tmp_path / "a.mp4", tmp_path / "p.png", tmp_path / "out"
    write_video(clip, frames=5, audio_s=0.2)
    save(picture, scene(60, 80))
    for source, path in ((clip, tmp_path / "alone.mp4"), (picture, tmp_path / "alone.png")):
        run_config(from_options(str(source), {**QUICK, "output": path, "save": "npy"}))
    doer = worker(out, save="npy")
    made = [
        doer.run(task(clip, out / "holiday/a.mp4")),
        doer.run(task(picture, out / "holiday/p.png", is_picture=True)),
    ]
    doer.close()
    assert [result["state"] for result in made] == ["done", "done"], made
    assert [result["frames"] for result in made] == [5, 1]
    for one, other in zip(frames_of(out / "holiday/a.mp4"), frames_of(tmp_path / "alone.mp4"), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(np.asarray(Image.open(out / "holiday/p.png")), np.asarray(Image.open(tmp_path / "alone.png")))
    assert np.array_equal(np.load(out / "holiday/p.npy"), np.load(tmp_path / "p.npy"))
    assert len(list((out / "holiday/a_depth").glob("*.npy"))) == 5
    assert left_in(out) == []
    assert all(len(json.dumps(result)) < 1000 for result in made)


def test_numbers_alone_and_the_names_of_pictures_that_clash(tmp_path: Path) -> None:
    picture, out = tmp_path / "p.jpg", tmp_path / "out"
    save(picture, scene(60, 80))
    doer = worker(out, save="npy,png16", picture="none")
    result = doer.run(task(picture, out / "h/p.jpg.png", is_picture=True))
    doer.close()
    assert result["state"] == "done", result
    assert sorted(path.name for path in (out / "h").iterdir()) == ["p.jpg.depth16.png", "p.jpg.npy"]
    assert Records(out).done("p.jpg") is not None


def test_what_is_done_is_not_done_again_and_a_changed_source_is(tmp_path: Path) -> None:
    clip, out = tmp_path / "a.mp4", tmp_path / "out"
    write_video(clip, frames=3)
    doer = worker(out)
    doer.run(task(clip, out / "a.mp4"))
    before = (out / "a.mp4").stat()
    again = worker(out)
    assert again.run(task(clip, out / "a.mp4"))["state"] == "done"
    after = (out / "a.mp4").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert again._model is None, "nothing had to be loaded"
    write_video(clip, frames=4)
    refused = again.run(task(clip, out / "a.mp4"))
    assert (refused["state"], refused["retry"]) == ("failed", False)
    assert "the source has changed since" in refused["reason"]
    (out / "a.mp4").unlink()
    assert again.run(task(clip, out / "a.mp4"))["frames"] == 4
    doer.close()
    again.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"no video at all" * 50, "not a video"), (None, "no such file")],
)
def test_a_source_at_fault_is_a_record_and_no_other_attempt(tmp_path: Path, content: bytes | None, reason: str) -> None:
    bad, out = tmp_path / "bad.mp4", tmp_path / "out"
    if content is not None:
        bad.write_bytes(content)
    doer = worker(out)
    result = doer.run(task(bad, out / "bad.mp4", attempt=2))
    doer.close()
    assert (result["state"], result["retry"], result["attempt"]) == ("failed", False, 2)
    assert reason in result["reason"]
    assert "\n" not in result["reason"]
    assert not (out / "bad.mp4").exists()
    assert left_in(out) == []


def test_a_file_that_is_no_result_of_ours_is_not_replaced(tmp_path: Path) -> None:
    clip, out = tmp_path / "a.mp4", tmp_path / "out"
    write_video(clip, frames=3)
    out.mkdir()
    (out / "a.mp4").write_text("precious")
    doer = worker(out)
    assert "--overwrite" in doer.run(task(clip, out / "a.mp4"))["reason"]
    assert (out / "a.mp4").read_text() == "precious"
    assert worker(out, overwrite=True).run(task(clip, out / "a.mp4"))["state"] == "done"
    doer.close()


def test_an_unexpected_error_is_worth_another_attempt_and_a_full_disk_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, out = tmp_path / "a.mp4", tmp_path / "out"
    write_video(clip, frames=3)
    doer = worker(out)
    for raised, expected in (
        (RuntimeError("CUDA error: unspecified\n launch failure"), ("failed", True)),
        (OSError(28, "No space left on device"), ("full", True)),
        (OSError(5, "Input/output error"), ("failed", True)),
        (StreamError("odd"), ("failed", False)),
    ):

        def fails(*_: Any, error: Exception = raised, **__: Any) -> Any:
            raise error

        monkeypatch.setattr("stream.batch.worker.run_config", fails)
        result = doer.run(task(clip, out / "a.mp4"))
        assert (result["state"], result["retry"]) == expected
        assert "\n" not in result["reason"]
    assert left_in(out) == []
    doer.close()


def test_the_move_of_a_worker_that_died_in_the_middle_of_it_is_ended_by_the_next(tmp_path: Path) -> None:
    clip, out = tmp_path / "a.mp4", tmp_path / "out"
    write_video(clip, frames=3)
    records = Records(out)
    with records.making("a.mp4", "dead") as folder:
        (folder / "a.mp4").write_bytes(b"one")
        (folder / "a_depth").mkdir()
        (folder / "a_depth/000000.npy").write_bytes(b"two")
        record = Done(name="a.mp4", source=source_state(str(clip)), outputs=entries(folder, out, out / "h"), frames=3)
        content = {"parent": str(out / "h"), "record": json.loads(json.dumps(record.__dict__, default=vars))}
        (folder / "record.json").write_text(json.dumps(content))
        kept = folder.rename(folder.with_name(folder.name + "x"))
    (out / "h").mkdir()
    (kept / "a.mp4").rename(out / "h/a.mp4")  # it died after the first of two
    found = Records(out).done("a.mp4")
    assert found == record
    assert (out / "h/a_depth/000000.npy").read_bytes() == b"two"
    records.discard_scratch("dead")
    assert left_in(out) == []

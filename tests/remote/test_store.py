"""Segments in a bucket: made, resumed by another worker, and joined by a third, as on a disk."""

from pathlib import Path

import pytest

from stream.config import Config
from stream.errors import OutputError, SinkError
from stream.jobs.segments.join import join
from stream.jobs.segments.remote_store import RemoteStore
from stream.jobs.segments.store import LocalStore
from stream.jobs.segments.work import run_rows, run_segment
from tests.support.media_files import write_video
from tests.support.s3_server import S3Server
from tests.support.segments import decoded, plan_by_frames

URL = "s3://jobs/a/out[1]?.mp4.segments"


def job(tmp_path: Path) -> Config:
    clip = write_video(tmp_path / "clip.mp4", frames=40, gop=8, b_frames=2, audio_s=1.6)
    return Config.model_validate(
        {
            "source": str(clip),
            "output": {"path": tmp_path / "out.mp4"},
            "model": {"input_size": 32},
            "render": {"range": "0:10"},
        }
    )


@pytest.mark.slow
def test_workers_without_a_common_disk_share_a_job(s3: S3Server, tmp_path: Path) -> None:
    s3.put("jobs", {})
    config = job(tmp_path)
    plan = plan_by_frames(config, [0, 16, 32])
    first = RemoteStore(URL)
    assert first.plan() is None
    first.save_plan(plan)
    run_segment(config, plan, plan.rows[1], first)

    second = RemoteStore(URL)
    assert second.plan() == plan
    s3.forget()
    done = [second.record(row.number) for row in plan.rows]
    assert [record is not None for record in done] == [False, True, False]
    assert len(s3.requests) <= 3  # one listing, and the record that is there
    made = run_rows(config, plan, plan.rows, second)
    assert [record.number for record in made] == [0, 1, 2]
    assert made[1] == done[1]

    third = RemoteStore(URL)
    join(config, plan, third)
    output = {"path": tmp_path / "alone.mp4", "resume": True}  # what waits beside it is its own
    alone = config.model_copy(update={"output": config.output.model_copy(update=output)})
    local = LocalStore.beside(tmp_path / "alone.mp4")
    local.save_plan(plan)
    run_rows(alone, plan, plan.rows, local)
    join(alone, plan, local)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    assert len(list(decoded(tmp_path / "out.mp4"))) == 40
    third.discard()
    assert s3.names("jobs") == []


@pytest.mark.slow
def test_of_two_workers_on_one_segment_the_first_record_stays(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put("jobs", {})
    config = job(tmp_path)
    plan = plan_by_frames(config, [0, 16, 32])
    one, other = RemoteStore(URL), RemoteStore(URL)
    one.save_plan(plan)
    record = run_segment(config, plan, plan.rows[0], one, attempt=1)
    monkeypatch.setattr(other, "record", lambda _number: None)  # it looked before the first had finished
    real = other._read_record
    looks: list[int] = []

    def late(number: int, found: object) -> object:
        looks.append(number)
        return None if len(looks) == 1 else real(number, found)  # type: ignore[arg-type]

    monkeypatch.setattr(other, "_read_record", late)
    assert run_segment(config, plan, plan.rows[0], other, attempt=2) == record
    names = s3.names("jobs")
    assert len([name for name in names if "/0000." in name]) == 2  # its record and its video


@pytest.mark.slow
def test_an_upload_that_breaks_leaves_no_record(s3: S3Server, tmp_path: Path) -> None:
    s3.put("jobs", {})
    config = job(tmp_path)
    plan = plan_by_frames(config, [0, 16, 32])
    store = RemoteStore(URL)
    store.save_plan(plan)
    for part in ("video.nut", "0000.json"):
        s3.refuses = lambda method, path, part=part: method == "PUT" and part in path  # type: ignore[misc]
        with pytest.raises(SinkError, match="writing failed"):
            run_segment(config, plan, plan.rows[0], store)
        assert RemoteStore(URL).record(0) is None
    s3.refuses = lambda _method, _path: False
    record = run_segment(config, plan, plan.rows[0], store)
    assert RemoteStore(URL).record(0) == record
    name = next(name for name in s3.names("jobs") if name.endswith("video.nut") and record.number == 0)
    assert name
    s3.client().put_object(Bucket="jobs", Key="a/out[1]?.mp4.segments/0001.json", Body=b"{}")
    assert RemoteStore(URL).record(1) is None
    with pytest.raises(OutputError, match="segment 1 is not done"):
        RemoteStore(URL).folder(1)


@pytest.mark.slow
def test_a_segment_whose_file_is_gone_is_done_again(s3: S3Server, tmp_path: Path) -> None:
    s3.put("jobs", {})
    config = job(tmp_path)
    plan = plan_by_frames(config, [0, 16, 32])
    store = RemoteStore(URL)
    store.save_plan(plan)
    run_segment(config, plan, plan.rows[0], store)
    (name,) = [name for name in s3.names("jobs") if name.endswith("video.nut")]
    s3.client().delete_object(Bucket="jobs", Key=name)
    assert RemoteStore(URL).record(0) is None
    again = run_segment(config, plan, plan.rows[0], RemoteStore(URL))
    assert RemoteStore(URL).record(0) == again

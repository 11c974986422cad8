"""Where a report is written: into a file, through a link, or to a pipe that a program reads."""

import json
import os
from pathlib import Path

import pytest

from stream.jobs.report import Report

REPORT = Report.of_failure("the camera is gone", source="cam:0", model="starter", duration_s=1.0)


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no names for open files here")
def test_a_pipe_gets_one_line() -> None:
    read, write = os.pipe()
    REPORT.save(Path(f"/dev/fd/{write}"))  # what /dev/stdout is a link to
    os.close(write)
    with os.fdopen(read) as reader:
        (line,) = reader.readlines()
    assert json.loads(line)["error"] == "the camera is gone"


def test_a_link_is_replaced_and_the_file_behind_it_stays(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("real.json")
    REPORT.save(tmp_path / "link.json")
    assert not (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "link.json").read_text())["exit_code"] == 1
    assert (tmp_path / "real.json").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "real.json"]

"""What `deploy/` holds does the work: each command is taken out of its file and run on short clips, on this machine."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.batch.test_worker import frames_of
from tests.support.media_files import write_video
from tests.support.paths import REPOSITORY
from tests.support.ray_cluster import on_ray, ray_environment

DEPLOY = REPOSITORY / "deploy"
CLIPS = {"a.mp4": 3, "b.mp4": 4, "c.mp4": 5, "d.mp4": 6}


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return found


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine of the job: this program as `depthstream`, and the folders."""
    programs, videos = tmp_path / "bin", tmp_path / "videos"
    programs.mkdir()
    videos.mkdir()
    program = programs / "depthstream"
    # Small images: the scripts' commands themselves stay as they are.
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m stream "$@" $EXTRA\n')
    program.chmod(0o755)
    for name, frames in CLIPS.items():
        write_video(videos / name, frames=frames)
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "EXTRA": "--input-size 64 --device cpu --backend torch",
        "SOURCES": str(videos),
        "OUT": str(tmp_path / "depth"),
    }


def run_all(commands: list[list[str]], environments: list[dict[str, str]]) -> list[subprocess.CompletedProcess[str]]:
    """Run them two at a time."""

    def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, commands, environments))


def made(out: Path) -> dict[str, int]:
    return {path.name: len(frames_of(path)) for path in out.rglob("*.mp4")}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_elements_of_the_slurm_array_do_everything_once(job: dict[str, str]) -> None:
    text = (DEPLOY / "slurm.sh").read_text(encoding="utf-8")
    first, last = map(int, re.search(r"^#SBATCH --array=(\d+)-(\d+)$", text, re.MULTILINE).groups())  # type: ignore[union-attr]
    assert (first, last) == (1, 8)
    array = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "3", "SLURM_ARRAY_TASK_COUNT": "3"}
    done = run_all(
        [["bash", str(DEPLOY / "slurm.sh")]] * 3,
        [{**job, **array, "SLURM_ARRAY_TASK_ID": str(number)} for number in (1, 2, 3)],
    )
    assert [element.returncode for element in done] == [0] * 3, done
    assert made(Path(job["OUT"])) == CLIPS


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("array", "shards", "element", "share"),
    [
        ((1, 2, 3), "", 3, "3/3"),
        ((1,), "", 1, "1/1"),
        ((1, 3, 5, 7), "8", 5, "5/8"),
        ((3,), "8", 3, "3/8"),
        ((0, 1, 2), "3", 0, "0/3"),  # which the command refuses
        ((1, 3, 5, 7), "", 1, None),
        ((0, 1, 2), "", 1, None),
        ((3,), "", 3, None),
    ],
)
def test_an_element_of_the_slurm_array_does_the_share_of_its_number(
    tmp_path: Path, array: tuple[int, ...], shards: str, element: int, share: str | None
) -> None:
    program = tmp_path / "depthstream"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SOURCES": "videos", "OUT": "depth", "SHARDS": shards}
    given |= {"SLURM_ARRAY_TASK_MIN": str(min(array)), "SLURM_ARRAY_TASK_MAX": str(max(array))}
    given |= {"SLURM_ARRAY_TASK_COUNT": str(len(array)), "SLURM_ARRAY_TASK_ID": str(element)}
    done = subprocess.run(["bash", str(DEPLOY / "slurm.sh")], env=given, capture_output=True, text=True, check=False)
    if share is None:
        assert (done.returncode, done.stdout) == (2, "")
        assert "SHARDS: say how many" in done.stderr
    else:
        assert done.stdout.split() == f"batch videos -o depth -m starter --quiet --shard {share}".split()


def test_the_slurm_script_is_bash_and_names_what_is_missing() -> None:
    script = str(DEPLOY / "slurm.sh")
    assert subprocess.run(["bash", "-n", script], capture_output=True, check=False).returncode == 0
    bare = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", script], env=bare, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "SOURCES: the folder, glob or list of the videos" in done.stderr


@pytest.mark.slow
def test_the_pods_of_the_indexed_job_do_everything_once(job: dict[str, str]) -> None:
    spec = manifest("kubernetes-indexed-job.yaml")["spec"]
    container = spec["template"]["spec"]["containers"][0]
    own = {entry["name"]: entry["value"] for entry in container["env"]}
    assert int(own["SHARDS"]) == spec["completions"]
    shards = {**own, **job, "SHARDS": "3"}
    done = run_all([container["command"]] * 3, [{**shards, "JOB_COMPLETION_INDEX": str(index)} for index in range(3)])
    assert [pod.returncode for pod in done] == [0] * 3, done
    assert made(Path(job["OUT"])) == CLIPS


def test_the_manifests_are_consistent() -> None:
    job = manifest("kubernetes-indexed-job.yaml")
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    ray = manifest("ray-job.yaml")
    assert (ray["apiVersion"], ray["kind"], ray["spec"]["backoffLimit"]) == ("ray.io/v1", "RayJob", 0)
    cluster = ray["spec"]["rayClusterSpec"]
    pins = (REPOSITORY / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={cluster['rayVersion']}" in pins
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for spec in (pod, *pods):
        assert f"--uid {spec['securityContext']['fsGroup']} " in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in spec["containers"]:
            assert container["image"] == "REGISTRY/depthstream"
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert all(mount["mountPath"] == "/data" for mount in container["volumeMounts"])


@pytest.fixture
def environment() -> Iterator[None]:
    with ray_environment():
        yield


class TestRayJob:
    pytestmark = on_ray

    def test_the_entrypoint_of_the_ray_job_works_on_a_cluster(
        self, environment: None, job: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ray.cluster_utils import Cluster

        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # a GPU for Ray to count; the model runs on the CPU
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False}
        )
        try:
            words = shlex.split(manifest("ray-job.yaml")["spec"]["entrypoint"])
            assert words[:5] == ["depthstream", "batch", "/data/videos", "-o", "/data/depth"]
            command = [*words[:2], job["SOURCES"], "-o", job["OUT"], *words[5:]]
            # As in a job, the address is in the environment.
            done = run_all([command], [{**job, "RAY_ADDRESS": cluster.address}])[0]
            assert done.returncode == 0, done
            assert made(Path(job["OUT"])) == CLIPS
        finally:
            cluster.shutdown()


def test_what_the_image_copies_exists() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    copied = [name for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for name in line.split()[:-1]]
    assert "stream" in copied
    assert all((REPOSITORY / name).exists() for name in copied)
    assert re.findall(r"'\.\[([\w,]+)\]'", text) == ["ray,remote"]

"""Batches on a real Ray cluster of several processes on this machine, whose workers and nodes are really killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from stream.batch import ray as module
from stream.batch.base import Result, Task
from stream.batch.job import Batch
from stream.batch.processes import Processes
from stream.batch.ray import Actors
from stream.batch.ray_needs import Needs, needs_of, with_shares
from stream.batch.summary import Hooks, Status, Summary
from stream.cli.main import invoke
from stream.config import Config
from stream.errors import MissingExtraError, StreamError, UsageError
from stream.jobs.options import from_options
from tests.batch.test_worker import QUICK, frames_of
from tests.support.media_files import write_video
from tests.support.paths import REPOSITORY
from tests.support.picture_files import save, scene
from tests.support.ray_cluster import on_ray, ray_environment
from tests.support.waiting import until


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    with ray_environment():
        yield


@pytest.fixture(scope="module")
def cluster(environment: None) -> Iterator[Any]:
    """A head without cores, and two nodes with one core each."""
    from ray.cluster_utils import Cluster

    before = set(psutil.Process().children(recursive=True))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()
    until(
        lambda: not [p for p in psutil.Process().children(recursive=True) if p not in before and alive(p)],
        "the cluster to end",
    )


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


class Watched:
    """A batch on a cluster whose workers a test can see."""

    def __init__(self, sources: Sequence[Path], out: Path, *, address: str, **options: Any) -> None:
        self.actors: Actors | None = None
        self.notes: list[str] = []
        self.sizes: list[int] = []
        self.on_status: Callable[[Status], None] = lambda status: None
        config = from_options(None, {**QUICK, "output": out, **options})
        self.address, self.config = address, config
        hooks = Hooks(on_note=self.notes.append, on_status=lambda status: self.on_status(status))
        self.batch = Batch(config, [str(source) for source in sources], executor=self._make, hooks=hooks)

    def run(self) -> Summary:
        return self.batch.run()

    def _make(self, configs: Sequence[Config]) -> Actors:
        watched = self

        class Measured(Actors):
            def submit(self, task: Task) -> None:
                watched.sizes.append(len(json.dumps(dict(task))))
                super().submit(task)

            def wait(self, timeout_s: float) -> list[Result]:
                results = super().wait(timeout_s)
                watched.sizes += [len(json.dumps(result)) for result in results]
                return results

        self.actors = Measured(self.config, address=self.address, on_note=self.notes.append)
        return self.actors

    def pid_of(self, name: str, what: str = "run") -> int | None:
        assert self.actors is not None
        wanted = (name, what)
        seats = self.actors._seats
        return next(
            (seat.pid for seat in seats if seat.task and (seat.task.get("name"), seat.task["what"]) == wanted), None
        )


def results_of(out: Path) -> dict[str, Any]:
    """What a batch has made: decoded frames and pixels, reasons of failures, and records without times."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        if path.suffix == ".mp4":
            found[name] = [frame.tobytes() for frame in frames_of(path)]
        elif path.suffix == ".npy":
            found[name] = np.load(path).tobytes()
        elif path.suffix == ".json":
            found[name] = {key: value for key, value in json.loads(path.read_bytes()).items() if key != "seconds"}
        else:
            found[name] = path.read_bytes()
    return found


def visible(out: Path) -> list[Path]:
    """The results in the output folder of a batch."""
    return [path for path in out.rglob("*") if path.is_file() and ".depthstream" not in path.parts]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "holiday"
    folder.mkdir()
    for name, frames in (("a.mp4", 5), ("b.mp4", 9), ("c.mkv", 2)):
        write_video(folder / name, frames=frames, audio_s=0.2)
    save(folder / "p.png", scene(40, 60))
    (folder / "bad.mp4").write_bytes(b"no video" * 99)
    return folder


class OnRay:
    pytestmark = on_ray


class TestOnACluster(OnRay):
    def test_the_results_are_those_of_the_local_pool_and_records_are_small(
        self, cluster: Any, sources: Path, tmp_path: Path
    ) -> None:
        config = from_options(None, {**QUICK, "output": tmp_path / "local", "save": "npy"})
        Batch(config, [str(sources)], jobs=2, executor=Processes).run()
        watched = Watched([sources], tmp_path / "ray", address=cluster.address, save="npy")
        summary = watched.run()
        assert summary.exit_code == 3
        assert results_of(tmp_path / "ray") == results_of(tmp_path / "local")
        assert not (tmp_path / "ray" / ".depthstream/work").exists()
        assert len(watched.sizes) > 10
        assert max(watched.sizes) < 1000
        assert watched.actors is not None
        assert (watched.actors.needs, watched.notes) == (Needs(cpus=1), [])

    @pytest.mark.parametrize("options", [{}, {"save": "npy", "range": "clip"}], ids=["video", "files, two passes"])
    def test_a_long_video_is_spread_over_the_workers_and_the_same_to_the_byte(
        self, cluster: Any, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        clip = write_video(tmp_path / "clip.mp4", frames=150, gop=25, audio_s=6.0)
        options = {"segment_seconds": 1, **options}
        config = from_options(None, {**QUICK, "output": tmp_path / "local", **options})
        assert Batch(config, [str(clip)], jobs=2, executor=Processes).run().exit_code == 0
        watched, busy = Watched([clip], tmp_path / "ray", address=cluster.address, **options), set[int]()

        def see(_status: Status) -> None:
            assert watched.actors is not None
            busy.update(seat.pid for seat in watched.actors._seats if seat.task and seat.task["what"] == "rows")

        watched.on_status = see
        summary = watched.run()
        assert (summary.exit_code, summary.sources[0].rows, len(busy)) == (0, 6, 2)
        made, wanted = (
            {path.relative_to(tmp_path / name): path.read_bytes() for path in visible(tmp_path / name)}
            for name in ("ray", "local")
        )
        assert made == wanted
        assert len(wanted) == (151 if "save" in options else 1)
        assert max(watched.sizes) < 1000

    def test_relative_paths_are_from_where_the_command_is_not_where_the_cluster_runs(
        self, cluster: Any, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        shutil.copy(REPOSITORY / "stream/data/starter.safetensors", "own.safetensors")
        watched = Watched(
            [sources / "a.mp4"], Path("out"), address=cluster.address, weights="own.safetensors", offline=True
        )
        assert (watched.run().exit_code, watched.notes) == (0, [])
        assert len(frames_of(tmp_path / "out/a.mp4")) == 5
        assert [path.name for path in tmp_path.iterdir()] == ["out", "own.safetensors"]

    def test_a_killed_worker_is_an_attempt_and_a_poison_is_tried_three_times(
        self, cluster: Any, sources: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        watched = Watched([sources / "a.mp4", sources / "b.mp4", sources / "c.mkv"], tmp_path, address=cluster.address)
        killed: dict[str, set[int]] = {"a.mp4": set(), "b.mp4": set()}

        def kill(status: Status) -> None:
            for name, most in (("a.mp4", 1), ("b.mp4", 99)):
                pid = watched.pid_of(name)
                if pid and pid not in killed[name] and len(killed[name]) < most:
                    killed[name].add(pid)
                    os.kill(pid, signal.SIGKILL)

        watched.on_status = kill
        summary = watched.run()
        states = {source.item.name: (source.state, source.attempts) for source in summary.sources}
        assert states["b.mp4"] == ("failed", 3)
        assert states["a.mp4"][0] == states["c.mkv"][0] == "done"
        assert states["a.mp4"][1] >= 2
        assert (len(killed["a.mp4"]), len(killed["b.mp4"])) == (1, 3)
        reason = (tmp_path / "failed/b.mp4.txt").read_text()
        assert reason == "the worker process was killed or crashed (out of memory?)\n3 attempts\n"
        assert summary.exit_code == 3
        assert not (tmp_path / ".depthstream/work").exists()
        assert capfd.readouterr().err == ""  # Ray's own words about it are not for the terminal

    def test_the_batch_goes_on_when_a_node_is_lost(self, cluster: Any, sources: Path, tmp_path: Path) -> None:
        node = cluster.add_node(num_cpus=1)
        lost: list[str] = []
        out, long = tmp_path / "out", tmp_path / "long"
        long.mkdir()
        for number in range(3):  # long enough that the second node gets one, and is lost before that is done
            write_video(long / f"{number}.mp4", frames=600, options={"preset": "ultrafast"})
        watched = Watched([sources, long], out, address=cluster.address)

        def lose(status: Status) -> None:
            assert watched.actors is not None
            here = (
                {child.pid for child in psutil.Process(raylet_pid(node)).children(recursive=True)} if not lost else ()
            )
            for seat in watched.actors._seats:
                task = seat.task or {}
                is_long = task.get("what") == "run" and task["name"].startswith("long/")  # a look is no attempt
                if not lost and is_long and seat.pid in here:
                    lost.append(task["name"])
                    cluster.remove_node(node, allow_graceful=False)

        watched.on_status = lose
        summary = watched.run()
        assert len(lost) == 1
        assert {source.item.name: source.state for source in summary.sources} == {
            "holiday/a.mp4": "done", "holiday/b.mp4": "done", "holiday/c.mkv": "done", "holiday/p.png": "done",
            "holiday/bad.mp4": "failed", **{f"long/{number}.mp4": "done" for number in range(3)},
        }  # fmt: skip
        assert next(s for s in summary.sources if s.item.name == lost[0]).attempts == 2
        assert not (out / ".depthstream/work").exists()

    def test_another_version_a_hidden_folder_and_too_large_needs_are_errors(
        self, cluster: Any, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(
            UsageError, match="no machine of the cluster has room for a worker, which takes 1 CPUs, 2 GPUs"
        ):
            Actors(from_options(None, {**QUICK, "output": tmp_path}), address=cluster.address, gpus=2)
        with monkeypatch.context() as patch:
            patch.setattr(module, "__version__", "0.0.1")
            with pytest.raises(
                StreamError, match=r"no worker is left: a machine .* has depthstream [\d.a-z]+, this one has 0\.0\.1"
            ):
                Watched([sources], tmp_path, address=cluster.address).run()
        monkeypatch.setattr(module, "_mark", lambda records, scratch: tmp_path / "elsewhere" / scratch / "mark")
        with pytest.raises(StreamError, match="does not see this folder; use a shared one"):
            Watched([sources], tmp_path, address=cluster.address).run()

    def test_ctrl_c_ends_a_batch_in_order_and_the_same_command_goes_on(
        self, cluster: Any, sources: Path, tmp_path: Path
    ) -> None:
        long, out = tmp_path / "long.mp4", tmp_path / "out"
        write_video(long, frames=500)
        watched = Watched([long], out, address=cluster.address)
        sent: list[int] = []

        def interrupt(status: Status) -> None:
            if not sent and status.frames:
                sent.append(status.frames)
                os.kill(os.getpid(), signal.SIGINT)

        watched.on_status = interrupt
        summary = watched.run()
        assert summary.exit_code == 130
        assert not (out / "long.mp4").exists()
        assert not (out / ".depthstream/work").exists()
        assert Watched([long], out, address=cluster.address).run().exit_code == 0
        assert len(frames_of(out / "long.mp4")) == 500


def raylet_pid(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


class TestFromTheShell(OnRay):
    def test_a_cluster_of_its_own_leaves_no_process_behind(
        self, environment: None, sources: Path, tmp_path: Path
    ) -> None:
        command = [sys.executable, "-m", "stream", "batch", str(sources), "-o", str(tmp_path / "out"), "--ray", "local",
                   "-j", "2", "-m", "starter", "--input-size", "64", "--device", "cpu", "--json"]  # fmt: skip
        before = {process.pid for process in psutil.process_iter()}
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stderr
        totals = json.loads(done.stdout.splitlines()[-1])
        assert (totals["done"], totals["failed"]) == (4, 1)
        until(lambda: not [p for p in psutil.process_iter() if p.pid not in before and is_ray(p)], "the cluster to end")

    def test_an_address_without_a_cluster_is_one_line(self, environment: None, sources: Path, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "stream", "batch", str(sources), "-o", str(tmp_path), "--ray", "127.0.0.1:1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "depthstream: --ray 127.0.0.1:1: no Ray cluster answers: " in done.stderr
        assert len(done.stderr.splitlines()) == 2  # and which model it is


def is_ray(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return alive(process) and ("ray::" in process.name() or process.name() in ("raylet", "gcs_server"))
    return False


def test_without_the_package_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"ray is not installed.*depthstream\[ray\]"):
        Actors(from_options(None, {**QUICK, "output": tmp_path}))


def test_the_command_line_knows_an_address_from_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", frames=2)
    seen: list[tuple[str, dict[str, Any]]] = []

    class Stop(StreamError):
        """Ends the command where the workers would start."""

    def stop(config: Config, *, address: str, **options: Any) -> Actors:
        seen.append((address, {key: value for key, value in options.items() if key != "on_note"}))
        raise Stop("seen")

    monkeypatch.setattr(module, "Actors", stop)
    monkeypatch.setattr(module, "check_installed", lambda: None)
    clip, out = str(tmp_path / "a.mp4"), ["-o", str(tmp_path / "out"), "-q"]
    for words in (
        ["--ray", clip],
        ["--ray", "local", clip],
        [clip, "--ray=head:6379"],
        [clip, "--ray", "10.0.0.1:6379"],
    ):
        assert invoke(["batch", *words, *out]) == 1
    assert [address for address, _ in seen] == ["", "local", "head:6379", "10.0.0.1:6379"]
    assert (
        invoke(["batch", clip, "--ray", "--gpus-per-worker", "0.5", "--memory-per-worker", "8G", "-j", "3", *out]) == 1
    )
    assert seen[-1] == ("", {"count": 3, "gpus": 0.5, "memory": 8 * 10**9})
    capsys.readouterr()
    for option in ("--gpus-per-worker", "--memory-per-worker"):
        assert invoke(["batch", clip, option, "2", *out]) == 2
        assert capsys.readouterr().err.startswith(f"depthstream: {option}: is only for --ray")
    assert invoke(["batch", clip, "--ray", "--memory-per-worker", "much", *out]) == 2
    for gpus in ("nan", "inf", "-1", "1.5", "0.00001"):  # Ray counts a share of one, or whole ones
        capsys.readouterr()
        assert invoke(["batch", clip, "--ray", "--gpus-per-worker", gpus, *out]) == 2
        assert f"{gpus} is no number of GPUs" in capsys.readouterr().err
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"--ray ray://head:10001: the Ray Client is not supported"):
        module._connect(None, "ray://head:10001")


@pytest.mark.parametrize(
    ("nodes", "options", "asked", "needs", "room"),
    [
        ([{"CPU": 8.0, "GPU": 2.0}], {}, {}, Needs(cpus=4, gpus=1), 2),
        ([{"CPU": 8.0, "GPU": 2.0}], {}, {"gpus": 0.5}, Needs(cpus=2, gpus=0.5), 4),
        ([{"CPU": 8.0, "GPU": 2.0}], {"device": "cpu"}, {}, Needs(cpus=8), 1),
        ([{"CPU": 8.0}, {"CPU": 4.0}], {}, {}, Needs(cpus=4), 3),
        ([{"CPU": 8.0}, {"CPU": 8.0}], {}, {"count": 4}, Needs(cpus=4), 4),
        ([{"CPU": 2.0}], {}, {"count": 4}, Needs(cpus=0.5), 4),
        ([{"CPU": 8.0, "memory": 10e9}], {"threads": 2}, {"memory": 4 * 10**9}, Needs(cpus=2, memory=4 * 10**9), 2),
        ([{"CPU": 8.0, "GPU": 1.0}], {}, {"gpus": 0.1}, Needs(cpus=0.8, gpus=0.1), 10),
        ([{"CPU": 0.0}], {}, {}, Needs(cpus=1), 0),
        ([{}], {}, {"count": 3}, Needs(cpus=1), 0),
    ],
)
def test_workers_share_the_cores_and_gpus_of_their_machine(
    nodes: list[dict[str, float]], options: dict[str, Any], asked: dict[str, Any], needs: Needs, room: int
) -> None:
    config = from_options(None, options)
    given = {"count": None, "gpus": None, "memory": None, **asked}
    assert needs_of(nodes, config, **given) == (needs, room)


def test_a_worker_knows_its_share_of_the_cores_and_the_memory() -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.0, "memory": 20e9}]
    made = with_shares(from_options(None, {}), Needs(cpus=4, gpus=0.5), nodes)
    assert (made.inference.threads, made.capture.max_memory) == (4, 10 * 10**9)
    made = with_shares(from_options(None, {"threads": 3, "max_memory": "2G"}), Needs(cpus=4, gpus=0.5), nodes)
    assert (made.inference.threads, made.capture.max_memory) == (3, 2 * 10**9)
    made = with_shares(from_options(None, {}), Needs(cpus=1, memory=3 * 10**9), nodes)
    assert made.capture.max_memory == 3 * 10**9

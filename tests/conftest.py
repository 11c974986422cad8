"""What every test shares: no test may leave a pipeline thread behind, or use the user's caches."""

import gc
import logging
import os
import re
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import settings

from stream.notes import Notes, collected

# Before torch is imported. Its threads spin while they wait for each other; on a machine that has other work, two of
# them for one core, that takes longer than the work itself: a network in bf16 took 33 s instead of 3 s.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile("fuzz", max_examples=1_000, derandomize=False, print_blob=True)
settings.register_profile("fuzz-long", settings.get_profile("fuzz"), max_examples=10_000)


_SLOW_TEST_BYTES = 8 * 2**30
"""A slow test takes up to 6 GB."""
_SLOW_TEST_S = 1200


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for all tests, or all slow ones; none for a part of them, where starting two takes longer."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return 0
    has_room = config.option.markexpr.startswith("not slow") or psutil.virtual_memory().total > 2 * _SLOW_TEST_BYTES
    return min(2, os.cpu_count() or 1) if has_room else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests more time: two share the cores, and large networks are compiled."""
    for item in items:
        is_slow = item.get_closest_marker("slow") or item.get_closest_marker("release")
        if is_slow and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SLOW_TEST_S))


_ONCE = re.compile(r"tqdm_monitor|fsspecIO|asyncio_\d")
"""Threads of tqdm, by torch's exporter, and of fsspec's event loop with its look-ups of names."""


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test after which a new thread is still alive two seconds later."""
    before = set(threading.enumerate())
    yield
    if _left(before):
        gc.collect()  # an engine that a caught exception's traceback keeps, and its threads
    deadline = time.monotonic() + 2
    while (left := _left(before)) and time.monotonic() < deadline:
        left[0].join(0.05)
    assert not left, f"threads left: {left}"


def _left(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads that are new, but for those that a library starts once in a process."""
    return [thread for thread in threading.enumerate() if thread not in before and not _ONCE.match(thread.name)]


@pytest.fixture(autouse=True)
def logging_is_the_hosts() -> Iterator[None]:
    """Fail a test after which the program's logging is not what it was."""
    root = logging.getLogger()

    def state() -> object:
        return root.level, root.filters[:], root.disabled, [handler.level for handler in root.handlers]

    before = state()
    yield
    assert state() == before


@pytest.fixture(autouse=True)
def no_backend_of_the_users(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of one test are there for the next, but not those that whoever runs the tests has made before."""
    folder = tmp_path_factory.getbasetemp() / "backends"
    monkeypatch.setattr("stream.infer.backends.cache.cache_folder", lambda: folder)
    outputs = tmp_path_factory.getbasetemp() / "outputs"
    monkeypatch.setattr("stream.sinks.record.cache_folder", lambda: outputs)
    measured = tmp_path_factory.getbasetemp() / "measured.json"
    monkeypatch.setattr("stream.bench.measured.measured_file", lambda: measured)


@pytest.fixture(autouse=True)
def no_exports_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--backend auto` stays torch, but in the tests of what takes its place: a child would take seconds of a core."""
    for name in ("PAYS_FROM_S", "LIVE_FROM_S"):
        monkeypatch.setattr(f"stream.infer.backends.auto.{name}", float("inf"))


@pytest.fixture(autouse=True)
def no_weights_of_other_programs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in the caches of torch.hub and Hugging Face do not change what a test finds."""
    for variable in ("TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path_factory.getbasetemp() / "no_cache"))
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(autouse=True)
def the_gpu_is_for_tests_of_it(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU runs the other tests as any machine does: `--device auto` is the CPU there."""
    if request.node.get_closest_marker("cuda") is None:
        import torch

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # of subprocesses


@pytest.fixture
def notes() -> Iterator[list[str]]:
    """What is noted during the test."""
    noted: list[str] = []
    with collected(Notes(noted.append)):
        yield noted

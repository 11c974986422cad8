"""Measures on a GPU whatever one can show, in steps that any number of calls may share.

    python scripts/measure/gpu.py --json gpu.json [--seconds 180] [--only STEP]... [--device cuda]
    python scripts/measure/gpu.py --json gpu.json --table

Runs the steps in the order below, the most valuable first. What a step has measured is written to the JSON file row by
row, so a call that is cut off loses only the row in progress, and the next call with the same file goes on after the
last one. The output of each step goes to STEP.log beside the JSON file. `--table` prints the file as Markdown.

    tests         the tests marked `cuda`, without the slow ones; each test is a row
    parity        error against the official code in fp32, fp16 and bf16: the smallest model of each architecture
    first         speed: a video model as a stream and in windows, Depth Anything V2 small, the built-in model
    overlap       from a profiler's trace: how much of the copying happens during computation
    tests-large   the slow tests marked `cuda`
    bench         speed: models × backends × precisions × batches, the network alone, the pipeline, a plain loop
    codecs        decoding and encoding on the GPU and on the CPU
    parity-all    as `parity`, all models

Rows of what this machine lacks say so. On CUDA each row states the peak of the device's memory.
Invariant: no two steps run at the same time if one of them measures time.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import gpu_table

from stream.files import json_text, write_file

HERE = Path(__file__)
START_S = 120.0
"""Longest time that a worker process may take to import everything and to find the GPU."""


@dataclass(frozen=True)
class Step:
    """A step of the program.

    Attributes:
        limit_s: longest time for one row; then the worker process is killed, the row says so, and the rest of the step
            goes on in a new process.
        is_timed: it measures time, so nothing may run beside it.
    """

    limit_s: float
    is_timed: bool = True


STEPS = {
    "tests": Step(90, is_timed=False),
    "parity": Step(60, is_timed=False),
    "first": Step(60),
    "overlap": Step(60),
    "tests-large": Step(180, is_timed=False),
    "bench": Step(240),
    "codecs": Step(60),
    "parity-all": Step(180, is_timed=False),
}


class Record:
    """The JSON file: `machine`, `steps` by name, and `rows`; written at each change, by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self.content: dict[str, Any] = {"machine": {}, "steps": {}, "rows": []}
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))

    def done(self, step: str) -> list[str]:
        """Keys of the step's rows."""
        return [row["key"] for row in self.content["rows"] if row["step"] == step]

    def add(self, step: str, row: dict[str, Any]) -> None:
        """Add a row."""
        with self._lock:
            self.content["rows"].append({"step": step, **row})
            self._write()

    def state(self, step: str, state: str, seconds: float) -> None:
        """Set what became of a step, and add to the time that it took."""
        with self._lock:
            before = self.content["steps"].get(step, {"seconds": 0.0})
            self.content["steps"][step] = {"state": state, "seconds": round(before["seconds"] + seconds, 1)}
            self._write()

    def is_done(self, step: str) -> bool:
        """Whether nothing of the step is left."""
        return bool(self.content["steps"].get(step, {}).get("state") == "done")

    def machine(self, facts: dict[str, Any]) -> None:
        """Keep what a worker found out about the machine, by the name of its card."""
        with self._lock:
            self.content["machine"][facts["card"]] = facts
            self._write()

    def _write(self) -> None:
        write_file(self.path, f"{json_text(self.content, indent=1)}\n".encode())


def run_step(name: str, record: Record, *, worker: Sequence[str], limit_s: float, deadline: float) -> None:
    """Run what is left of a step until `deadline` of the monotonic clock, in as many worker processes as it takes.

    Args:
        worker: the command; it gets the step and its finished rows as a JSON line on its standard input.
    """
    started, state = time.monotonic(), "cut off by --seconds"
    with record.path.with_name(f"{name}.log").open("ab") as log:
        while time.monotonic() < deadline:
            before = len(record.done(name))
            ended, begun = _run_worker(name, record, worker, log, limit_s=limit_s, deadline=deadline)
            if ended == "done" or ended == "deadline":
                state = "done" if ended == "done" else state
                break
            if begun is not None:
                record.add(name, {"key": begun, "error": ended})
            elif len(record.done(name)) == before:  # it would only happen again
                state = ended
                break
    record.state(name, state, time.monotonic() - started)


def _run_worker(
    name: str, record: Record, command: Sequence[str], log: IO[bytes], *, limit_s: float, deadline: float
) -> tuple[str, str | None]:
    """How a worker ended ("done", "deadline", or what went wrong), and the row that it was at."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"step": name, "done": record.done(name)}).encode() + b"\n")
    process.stdin.close()
    lines: queue.Queue[bytes | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    begun: str | None = None
    has_started = False
    try:
        while True:
            left_s, most_s = deadline - time.monotonic(), limit_s if has_started else START_S
            try:
                line = lines.get(timeout=max(0.0, min(most_s, left_s)))
            except queue.Empty:
                return ("deadline" if left_s <= most_s else f"cut off after {most_s:.0f} s"), begun
            if line is None:
                code = process.wait()
                return ("done" if code == 0 else f"the process ended with {code}, see {name}.log"), begun
            message, has_started = json.loads(line), True
            if "machine" in message:
                record.machine(message["machine"])
            elif "begin" in message:
                begun = message["begin"]
            else:
                record.add(name, message)
                begun = None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group: processes that it started, too
        process.wait()
        reader.join()


def _read(process: "subprocess.Popen[bytes]", lines: "queue.Queue[bytes | None]") -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put(None)


def groups(names: Sequence[str]) -> list[list[str]]:
    """The steps in order; neighbours that measure no time are together and may run side by side."""
    found: list[list[str]] = []
    for name in names:
        if found and not STEPS[name].is_timed and not STEPS[found[-1][-1]].is_timed:
            found[-1].append(name)
        else:
            found.append([name])
    return found


def main() -> None:
    """Run what is left, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="results, also of earlier calls")
    parser.add_argument("--seconds", type=float, default=540.0, help="stop after so long; default: 540")
    parser.add_argument("--only", action="append", choices=STEPS, metavar="STEP", help="this step; may be repeated")
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--clips", type=Path, help="keep the generated clips here; default: beside the JSON file")
    parser.add_argument("--table", action="store_true", help="print the results as Markdown; measure nothing")
    given = parser.parse_args()
    record = Record(given.json)
    if given.table:
        print("\n".join(gpu_table.lines(record.content)))
        return
    given.json.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + given.seconds
    clips = given.clips or given.json.parent / "clips"
    worker = [sys.executable, str(HERE.with_name("gpu_worker.py")), given.device, str(clips)]
    wanted = [name for name in STEPS if (not given.only or name in given.only) and not record.is_done(name)]
    for group in groups(wanted):
        threads = [
            threading.Thread(
                target=run_step,
                args=(name, record),
                kwargs={"worker": worker, "limit_s": STEPS[name].limit_s, "deadline": deadline},
            )
            for name in group
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in group:
            print(f"{name}: {record.content['steps'][name]['state']}, {len(record.done(name))} rows", flush=True)


if __name__ == "__main__":
    main()

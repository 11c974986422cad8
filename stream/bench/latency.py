"""The age of what a viewer sees: from a frame's capture to its pixels on a screen.

`depthstream run pattern:clock` runs as a process of its own and shows its picture, with the capture time in it, on a
virtual screen (Xvfb): in its window, or in Chromium. This process reads the code in the screen's memory again and
again; when a new one appears, its age is the latency. A camera's exposure and transfer, and the refresh of a real
screen, come on top.
Invariant: the program is measured as users run it; the reader looks every millisecond and takes no part in the run.
"""

import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from stream.capture.clock import PERIOD_MS, Box, locate, read
from stream.capture.pattern import RATE
from stream.errors import StreamError, UsageError
from stream.frames import RgbImage
from stream.notes import note

DISPLAYS = ("window", "page")
SECONDS = 15.0
"""How long each display is watched."""
_WARM_UP_S = 2.0
_OPEN_TIMEOUT_S = 120.0
"""For loading the model and showing the first picture."""
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.001
_LOOK_S = 0.05
"""How often a code is looked for; that takes 15 ms."""
_LOST_S = 1.0
"""Without a readable code for so long, it is looked for again: a page may have moved it."""
_SCREEN_WH = (1600, 1000)
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
_CHROMIUM_FLAGS = (
    "--no-first-run", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage", "--window-position=0,0", "--window-size=1600,1000",
)  # fmt: skip
_WATCH_AT = re.compile(r"watch at (http\S+)")


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """The latency of one display.

    Attributes:
        display: one of `DISPLAYS`.
        backend, precision: what the run used.
        size: of the source, "width×height".
        camera_fps: rate of the source.
        shown: frames that were seen on the screen.
        fps: of these.
        p50_s, p95_s, worst_s: age of a frame when it appears on the screen.
        first_picture_s: from the start of the command to its first picture on the screen, at most 0.1 s late; for the
            page with the start of the browser.
        program_p50_s, program_p95_s: the same as the program reports it: until it has handed the picture over.
    """

    model: str
    display: str
    backend: str
    precision: str
    size: str
    camera_fps: float
    shown: int
    fps: float
    p50_s: float
    p95_s: float
    worst_s: float
    first_picture_s: float
    program_p50_s: float | None
    program_p95_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable values."""
        return asdict(self)


def possible_displays() -> list[str]:
    """Those of `DISPLAYS` that can be watched here; what is missing for the others is noted.

    Raises:
        UsageError: none can.
    """
    if shutil.which("Xvfb") is None:
        raise UsageError("Xvfb is not installed", where="--latency", hint="apt-get install xvfb (Linux)")
    if _chromium() is None:
        note("latency: Chromium is not installed, so the page is left out")
        return ["window"]
    return list(DISPLAYS)


def measure(
    model: str, display: str, *, size_hw: tuple[int, int], arguments: Sequence[str], seconds: float = SECONDS
) -> LatencyResult:
    """Measure one model on one display.

    Args:
        model: its catalog name.
        size_hw: (height, width) of the source.
        arguments: further ones of `depthstream run`: backend, weights, …
        seconds: how long to watch.

    Raises:
        StreamError: the run ended early, or nothing was shown.
    """
    height, width = size_hw
    shows = ["--preview"] if display == "window" else ["--no-preview", "--serve", "127.0.0.1:0"]
    with tempfile.TemporaryDirectory(prefix="depthstream-latency-") as temporary, ExitStack() as resources:
        folder = Path(temporary)
        screen = resources.enter_context(_screen(folder))
        report = folder / "report.json"
        command = [
            sys.executable, "-m", "stream", "run", "pattern:clock", "-m", model, "--camera-size", f"{width}x{height}",
            "--layout", "side", "--report", str(report), *shows, *arguments,
        ]  # fmt: skip
        started_s = time.monotonic()
        run = resources.enter_context(_Run.started(command, screen.name, folder))
        if display == "page":
            resources.enter_context(_browser(run.address(), screen.name, folder / "profile"))
        box = _located(screen, run)
        first_picture_s = time.monotonic() - started_s
        watched = _watch(screen, run, box, seconds)
        run.stop()
        said = json.loads(report.read_text(encoding="utf-8"))
    ages_s = np.array([age for _, age in watched])
    if len(ages_s) < 2:
        raise StreamError(f"{len(ages_s)} frames were shown in {seconds:g} s", where=f"--latency, {display}")
    p50_s, p95_s = np.percentile(ages_s, (50, 95))
    return LatencyResult(
        model=model,
        display=display,
        backend=said["backend"],
        precision=said["precision"],
        size=f"{width}×{height}",
        camera_fps=float(RATE),
        shown=len(ages_s),
        fps=(len(ages_s) - 1) / (watched[-1][0] - watched[0][0]),
        p50_s=float(p50_s),
        p95_s=float(p95_s),
        worst_s=float(ages_s.max()),
        first_picture_s=first_picture_s,
        program_p50_s=said["latency_p50_s"],
        program_p95_s=said["latency_p95_s"],
    )


def _watch(screen: "_Screen", run: "_Run", box: Box, seconds: float) -> list[tuple[float, float]]:
    """(time, age) of each new frame on the screen, both in seconds, after a warm-up."""
    began = seen_s = time.monotonic()
    sightings, last = list[tuple[float, float]](), -1
    while (now := time.monotonic()) < began + _WARM_UP_S + seconds:
        found = read(screen.pixels, box)
        if found is not None:
            seen_s = now
            if found != last:
                last = found
                age_s = (int(1000 * now) - found) % PERIOD_MS / 1000
                if now >= began + _WARM_UP_S and age_s < _OPEN_TIMEOUT_S:  # else a coincidence
                    sightings.append((now, age_s))
        elif now > seen_s + _LOST_S:
            box = _located(screen, run)
            seen_s = time.monotonic()
        run.check()
        time.sleep(_POLL_S)
    return sightings


def _located(screen: "_Screen", run: "_Run") -> Box:
    until = time.monotonic() + _OPEN_TIMEOUT_S
    while time.monotonic() < until:
        run.check()
        if (box := locate(screen.rgb())) is not None:
            return box
        time.sleep(_LOOK_S)
    raise StreamError(f"no picture appeared within {_OPEN_TIMEOUT_S:g} s", where="--latency", hint=run.last_words())


class _Screen:
    """A virtual screen whose pixels can be read without asking it.

    Args:
        name: of the X display.
        file: its memory, in the format of xwd: big-endian numbers, a table of colours, then rows of BGRX.

    Attributes:
        pixels: uint8 H×W×4, BGRX; they change while they are read.
    """

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        with file.open("rb") as stream:
            self._memory = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        header = np.frombuffer(self._memory, ">u4", 25)
        first, width, height, row_bytes = (int(header[place]) for place in (0, 4, 5, 12))
        first += 12 * int(header[19])
        rows = np.frombuffer(self._memory, np.uint8, height * row_bytes, first).reshape(height, row_bytes // 4, 4)
        self.pixels = rows[:, :width]

    def rgb(self) -> RgbImage:
        """A copy of what is shown now."""
        return np.ascontiguousarray(self.pixels[..., 2::-1])


@contextmanager
def _screen(folder: Path) -> Iterator[_Screen]:
    width, height = _SCREEN_WH
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{width}x{height}x24", "-fbdir", str(folder)]
    server = subprocess.Popen([*command, "-nolisten", "tcp", "-noreset"], pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        with os.fdopen(reader) as numbers:
            number = numbers.readline().strip()
        if not number:
            raise StreamError("Xvfb does not start", where="--latency")
        yield _Screen(f":{number}", folder / "Xvfb_screen0")
    finally:
        _end(server)


@contextmanager
def _browser(url: str, display: str, profile: Path) -> Iterator[None]:
    program = _chromium()
    assert program is not None
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's refuses to run as root
    browser = subprocess.Popen(
        [program, *_CHROMIUM_FLAGS, *sandbox, f"--user-data-dir={profile}", f"--app={url}"],
        env={**os.environ, "DISPLAY": display},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        _end(browser)


def _chromium() -> str | None:
    return next((found for name in _CHROMIUMS if (found := shutil.which(name)) is not None), None)


class _Run:
    """A `depthstream run` in a process of its own.

    Args:
        process: with its stderr as a pipe.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        assert process.stderr is not None
        self._reader = threading.Thread(target=self._listen, args=(process.stderr,), daemon=True)
        self._reader.start()

    @classmethod
    @contextmanager
    def started(cls, command: Sequence[str], display: str, folder: Path) -> Iterator["_Run"]:
        """Start it, and end it on leaving if it still runs."""
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "DISPLAY": display, "PYTHONPATH": path, "NO_COLOR": "1"}
        with subprocess.Popen(
            command, env=environment, cwd=folder, text=True, errors="replace", stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            try:
                yield cls(process)
            finally:
                if process.poll() is None:
                    process.kill()

    def check(self) -> None:
        """Raise `StreamError` if it has ended."""
        if self._process.poll() is not None:
            raise StreamError("the run has ended early", where="--latency", hint=self.last_words())

    def address(self) -> str:
        """Where it serves its page."""
        until = time.monotonic() + _OPEN_TIMEOUT_S
        while time.monotonic() < until:
            self.check()
            if (found := _WATCH_AT.search(" ".join(self._lines))) is not None:
                return found[1]
            time.sleep(0.05)
        raise StreamError("the run serves no page", where="--latency", hint=self.last_words())

    def last_words(self) -> str:
        """The last line that it has printed, for an error."""
        return next((line for line in reversed(self._lines) if line), "")

    def stop(self) -> None:
        """End it as Ctrl-C does; it then has written its report."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(_STOP_TIMEOUT_S)

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.append(line.strip())


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""Image, depth and camera in space in Rerun: live in a viewer, or in a file (extra `rerun`).

Rerun's SDK may block while it sends, for good if a viewer hangs. So one thread makes every call of it, and only this
thread waits; a live run replaces what it has not taken yet.
Invariant: no call of this sink outlasts a viewer that hangs or is closed by more than `_PATIENCE_S`, and no usage
statistics are sent.
"""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from stream.depthdata.points import FocalSource, camera_of, distances, edges
from stream.errors import MissingExtraError, OutputError, SinkError, reason_of
from stream.files import CreatedFolders, check_partial, partial_path
from stream.frames import Depth, DepthKind, Frame, Intrinsics, RgbImage, SourceInfo, SourceKind
from stream.sinks.base import Sink
from stream.sinks.ply import assumed_note, scale_note

if TYPE_CHECKING:
    from types import ModuleType

_JPEG_QUALITY = 90
_PATIENCE_S, _WAKE_S = 10.0, 0.1
_FULL = 1 << 20
"""Bytes; a disk with less is taken for full."""
_VIEWER_MEMORY = "2GiB"
"""The viewer drops its oldest frames beyond this; its default is three quarters of the machine's memory."""


class RerunSink(Sink):
    """Logs `camera` (pinhole), `camera/image` and `camera/depth` on the timelines `frame` and `time`.

    Depth is in the unit of `point_cloud`; pixels without an answer and those at depth edges are 0, which Rerun does not
    draw. The image is compressed as JPEG.

    Args:
        path: the file to record to (`.rrd`); None: a viewer is started, and stays open when the run ends.
        fov, ends: see `point_cloud`.
        overwrite: an existing file may be replaced.
        is_only_output: the run ends when the viewer is closed.
    """

    needs_image = False

    def __init__(
        self,
        path: Path | None = None,
        *,
        fov: float | None = None,
        ends: tuple[float, float] | None = None,
        overwrite: bool = False,
        is_only_output: bool = False,
    ) -> None:
        self._is_only_output = is_only_output
        self.path, self._fov, self._ends, self._overwrite = path, fov, ends, overwrite
        self.notes: list[str] = []
        self._folders = CreatedFolders()
        self._rerun: ModuleType | None = None
        self._viewer: subprocess.Popen[bytes] | None = None
        self._is_live = self._is_video = self._is_final = False
        self._assumed = self._shown = 0
        self._changed = threading.Condition()
        self._waiting: tuple[Frame, Depth] | None = None
        self._is_busy = self._is_closed = self._is_gone = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_lossless(self) -> bool:
        """A recording is, a viewer is not."""
        return self.path is not None

    @property
    def outputs(self) -> list[str]:
        """The file, under its partial name until finished, or the viewer."""
        if self._thread is None:
            return []
        if self.path is None:
            return ["Rerun viewer"]
        return [str(self.path if self._is_final else partial_path(self.path))]

    @property
    def counters(self) -> Mapping[str, int]:
        """Frames that were logged, and those whose camera is unknown."""
        counts = {"rerun_frames": self._shown, "assumed_cameras": self._assumed}
        return {name: count for name, count in counts.items() if count}

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:  # noqa: ARG002 - any size fits
        """Create the recording, or start the viewer.

        Raises:
            MissingExtraError: rerun-sdk is not installed.
            OutputError: the file exists and may not be replaced, or cannot be created.
            SinkError: the viewer cannot be started.
        """
        rerun = self._rerun = imported()
        self._is_live, self._is_video = info.is_live, info.kind is not SourceKind.STILLS
        recording = rerun.RecordingStream("depthstream")
        address = ""
        if self.path is not None:
            self._open_file(self.path, recording)
        else:
            port = _free_port()
            self.notes.append(switched_off())
            self._viewer = _started_viewer(port)
            address = f"rerun+http://127.0.0.1:{port}/proxy"
        self._thread = threading.Thread(
            target=self._work, args=(rerun, recording, address), name="depthstream-rerun", daemon=True
        )
        self._thread.start()

    def _open_file(self, path: Path, recording: Any) -> None:
        if os.path.lexists(path) and not self._overwrite:
            raise OutputError("the file exists", where=str(path), hint="pass --overwrite to replace it")
        check_partial(path, overwrite=self._overwrite)
        try:
            self._folders.create(path.parent)
            with partial_path(path).open("wb"):  # Rerun would report that it cannot only later, and on stderr
                pass
            recording.save(str(partial_path(path)))
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                partial_path(path).unlink(missing_ok=True)
            self._folders.remove_empty()
            reason = reason_of(error) if isinstance(error, OSError) else " ".join(str(error).split())
            raise OutputError(f"cannot be created: {reason}", where=str(path)) from error

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - not rendered
        """Pass a result on; of a live source shown in a viewer, the newest replaces one that still waits.

        Returns:
            False if the viewer was closed.

        Raises:
            SinkError: an earlier result could not be logged.
        """
        with self._changed:
            if self.path is not None or not self._is_live:
                self._await(lambda: self._waiting is None or self.stopping())
            self._raise()
            if self._is_gone or self._is_closed:
                return False
            self._waiting = frame, depth
            self._changed.notify_all()
        return True

    def poll(self) -> None:
        """Notice that the viewer was closed, and end the run if it is the only output.

        Raises:
            SinkError: the viewer has failed, and it is the only output.
        """
        if self._viewer is None or self._is_gone or (code := self._viewer.poll()) is None:
            return
        if code == 0:
            self._lose("the Rerun viewer was closed; nothing more is sent to it")
            self.wants_stop = self._is_only_output
            return
        what, hint = f"the viewer has failed (exit code {code})", "run `rerun` to see why, or record: --rerun=FILE.rrd"
        self._lose(f"--rerun: {what}; nothing more is sent to it; {hint}")
        if self._is_only_output:
            raise SinkError(what, where="--rerun", hint=hint)

    def finish(self) -> None:
        """Log what waits, and give a recording its final name.

        Raises:
            SinkError: the recording cannot be completed.
        """
        self._end()
        if self.path is not None:
            if os.path.lexists(self.path) and not self._overwrite:
                hint = f"see {partial_path(self.path)}"
                raise SinkError("the file was created by another program", where=str(self.path), hint=hint)
            try:
                os.replace(partial_path(self.path), self.path)
            except OSError as error:
                raise SinkError(f"cannot be completed: {reason_of(error)}", where=str(self.path)) from error
            self._is_final = True

    def keep_partial(self, reason: str) -> None:  # noqa: ARG002 - the recording itself is whole
        """Log what waits; a recording keeps its partial name."""
        self._end()

    def abort(self, error: BaseException) -> None:  # noqa: ARG002 - the pipeline reports it
        """End the thread, and remove the recording."""
        self._waiting = None
        try:
            self._end()
        except SinkError:
            pass  # the pipeline has an error already
        finally:
            if self.path is not None and self._thread is not None:
                partial_path(self.path).unlink(missing_ok=True)
            self._folders.remove_empty()

    def _await(self, ready: Callable[[], bool]) -> None:
        """Wait, with the lock, until `ready`, the end of the thread, or the loss of the viewer."""
        while not (ready() or self._is_gone or self._is_closed or self._error is not None):
            self._changed.wait(_WAKE_S)
            self.poll()

    def _lose(self, why: str) -> None:
        with self._changed:
            if not self._is_gone:
                self._is_gone = True
                self.notes.append(why)
            self._changed.notify_all()

    def _raise(self) -> None:
        """Raise what the thread has failed with, once."""
        error, self._error = self._error, None
        if error is not None:
            self._is_closed = True
            reason = " ".join(str(error).split())
            if self.path is not None and shutil.disk_usage(self.path.parent).free < _FULL:
                reason = os.strerror(errno.ENOSPC)  # Rerun gives no reason
            raise SinkError(f"cannot be written: {reason}", where=str(self.path or "--rerun")) from error

    def _end(self) -> None:
        """Let the thread log what waits and disconnect; a viewer that hangs is left behind."""
        thread = self._thread
        if thread is None:
            return
        with self._changed:
            self._await(lambda: self._waiting is None and not self._is_busy)
            self._raise()
            self._is_closed = True
            self._changed.notify_all()
        thread.join(None if self.path is not None else _PATIENCE_S)
        if thread.is_alive() and self._rerun is not None:
            self._lose("the Rerun viewer does not answer; the last frames may be missing")
            self._rerun.unregister_shutdown()  # which would wait for it when Python exits
        with self._changed:
            self._raise()

    def _work(self, rerun: Any, recording: Any, address: str) -> None:
        camera: Intrinsics | None = None
        try:
            if address:
                recording.connect_grpc(address)  # waits while the viewer starts
            recording.log("/", rerun.ViewCoordinates.RDF, static=True)
            while (item := self._next()) is not None:
                camera = self._log(rerun, recording, *item, camera)
                del item
                if self.path is None:  # so that no more than one frame is on its way
                    recording.flush(timeout_sec=_PATIENCE_S)
                self._shown += 1
            if not self._is_gone:
                recording.flush(timeout_sec=_PATIENCE_S)
                recording.disconnect()
        except BaseException as error:  # noqa: BLE001  the caller's thread raises it
            if self.path is None:
                self._lose(f"the Rerun viewer was lost: {' '.join(str(error).split())}")
            with self._changed:
                self._error = error if self.path is not None else None
                self._changed.notify_all()

    def _next(self) -> tuple[Frame, Depth] | None:
        with self._changed:
            self._is_busy = False
            self._changed.notify_all()
            while self._waiting is None:
                if self._is_closed or self._is_gone:
                    return None
                self._changed.wait(_WAKE_S)
            item, self._waiting, self._is_busy = self._waiting, None, True
            self._changed.notify_all()
            return item

    def _log(self, rerun: Any, recording: Any, frame: Frame, depth: Depth, before: Intrinsics | None) -> Intrinsics:
        camera, source = camera_of(frame, depth, self._fov)
        if source is FocalSource.ASSUMED:
            if not self._assumed:
                self.notes.append(assumed_note("--rerun"))
            self._assumed += 1
        recording.set_time("frame", sequence=frame.index)
        recording.set_time("time", duration=frame.time_s)
        if camera != before:
            height, width = frame.size
            pinhole = rerun.Pinhole(
                focal_length=[camera.fx, camera.fy],
                principal_point=[camera.cx, camera.cy],
                resolution=[width, height],
                camera_xyz=rerun.ViewCoordinates.RDF,
            )
            recording.log("camera", pinhole)
        if self._is_video and depth.kind is DepthKind.RELATIVE_DISPARITY and self._ends is None and not self._shown:
            self.notes.append(scale_note("--rerun"))
        z = distances(depth, self._ends)
        z = np.where(edges(z, camera), np.float32(0), z)
        recording.log("camera/image", rerun.Image(frame.rgb).compress(jpeg_quality=_JPEG_QUALITY))
        recording.log("camera/depth", rerun.DepthImage(z, meter=1.0))
        return camera


def imported() -> "ModuleType":
    """The package `rerun`.

    Raises:
        MissingExtraError: it is not installed.
    """
    check_installed()
    level = os.environ.get("RUST_LOG")
    os.environ["RUST_LOG"] = level or "off"  # read on import; what fails is raised, and stderr is for our own lines
    try:
        import rerun
    finally:
        if level is None:
            del os.environ["RUST_LOG"]
    return rerun


def check_installed() -> None:
    """Raise `MissingExtraError` without the package `rerun`; imports nothing."""
    try:
        is_there = find_spec("rerun") is not None
    except ValueError:  # as None in `sys.modules`
        is_there = False
    if not is_there:
        hint = "pip install 'depthstream[rerun]'"
        raise MissingExtraError("rerun-sdk is not installed", where="--rerun", hint=hint)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _started_viewer(port: int) -> "subprocess.Popen[bytes]":
    """A viewer of our own, which Ctrl-C does not end.

    Raises:
        SinkError: it cannot be started.
    """
    import rerun_cli

    program = Path(rerun_cli.__file__).with_name("rerun.exe" if sys.platform == "win32" else "rerun")
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--memory-limit", _VIEWER_MEMORY]
    try:
        return subprocess.Popen(
            [str(program), *arguments, "--hide-welcome-screen", "--expect-data-soon"],  # the screen loads examples
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "RERUN_APP_ONLY": "true"},
        )
    except OSError as error:
        raise SinkError(f"no viewer can be started: {reason_of(error)}", where="--rerun") from error


def switched_off() -> str:
    """Switch the usage statistics of Rerun's viewer off in its settings, as `rerun analytics disable` does.

    That command itself counts as a use. There is no variable of the environment for it.

    Returns:
        A note that says so.

    Raises:
        SinkError: the settings cannot be written.
    """
    folder = platformdirs.user_config_path("rerun", appauthor=False, roaming=True)
    file = (folder / "config" if sys.platform == "win32" else folder) / "analytics.json"
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError):
        settings = None
    if not isinstance(settings, dict):
        settings = {
            "analytics_id": uuid.uuid4().hex,
            "metadata": {},
            "config_file_path": str(file),
            "data_dir_path": str(platformdirs.user_data_path("rerun", appauthor=False) / "analytics"),
        }
    if settings.get("analytics_enabled") is not False:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({**settings, "analytics_enabled": False}))
        except OSError as error:
            what = f"usage statistics cannot be switched off: {reason_of(error)}"
            raise SinkError(what, where=str(file), hint="record with --rerun=FILE.rrd") from error
    return f"--rerun: Rerun's usage statistics are switched off in {file}"

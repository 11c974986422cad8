"""`--sandbox`: the same frames and sound as without, and a child whose end, however it ends, is one skipped input."""

import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import stream
from stream.capture.base import Source
from stream.capture.memory import Images
from stream.capture.open import open_images, open_source
from stream.capture.sandbox import process, wire
from stream.capture.sandbox import source as sandbox
from stream.capture.sandbox.sound import Sound
from stream.capture.sandbox.wire import Fields
from stream.config import CaptureConfig
from stream.errors import SourceError, UsageError
from stream.frames import Audio, AudioPacket, Frame
from stream.media import av
from stream.metrics import Outcome
from tests.capture.test_focal import exif
from tests.capture.test_pipe import as_stdin, piped
from tests.support.media_files import number_of, numbered, write_video
from tests.support.picture_files import animated, linear, save, save_heic, scene

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no sandbox elsewhere")
FRAMES = 12


def opened(text: object, **options: Any) -> Source:
    return open_source(str(text), options=CaptureConfig(sandbox=True, **options))


def everything(source: Source) -> tuple[object, list[tuple[Any, ...]], list[bytes], list[tuple[Any, ...]]]:
    """What is known of a source, its frames, their pixels, and its packets of sound."""
    packets: list[tuple[Any, ...]] = []

    def take(item: AudioPacket, _size: int) -> None:
        one = item.packet
        skip = bytes(one.get_sidedata("skip_samples")) if one.has_sidedata("skip_samples") else b""
        times = one.pts, one.dts, one.duration, one.time_base
        packets.append((item.track, *times, one.is_keyframe, bytes(one), skip))

    with closing(source):
        info = source.info
        if info.audio is not None:
            info.audio.packets.listen(take)
        frames = list(source)
        assert info.audio is None or info.audio.packets.has_ended
    about = {name: getattr(info, name) for name in info.__dataclass_fields__ if name != "audio"}
    about["audio"] = facts_of(info.audio)
    facts = [(f.index, f.pts, f.time_base, f.duration, f.name, f.size, f.intrinsics) for f in frames]
    return (about, source.log), facts, [f.rgb.tobytes() for f in frames], packets


def same_in_a_sandbox(text: object, **options: Any) -> None:
    plain = everything(open_source(str(text), options=CaptureConfig(**options)))
    confined = everything(opened(text, **options))
    assert plain[1]
    assert confined == plain


def facts_of(audio: Audio | None) -> list[tuple[object, ...]]:
    """What an output needs to know to copy the tracks."""
    found = []
    for track in () if audio is None else audio.tracks:
        of = track.codec_context
        codec = of.codec.canonical_name, of.sample_rate, of.layout.name, of.extradata, of.profile, of.bit_rate
        found.append((*codec, track.time_base, track.disposition))
    return found


def sabotage(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have every child run `code` before it is confined."""
    code = code.replace("{", "{{").replace("}", "}}")
    head, mark, rest = process.START.partition("from stream.capture.sandbox.child")
    monkeypatch.setattr(process, "START", f"{head}{code}\n{mark}{rest}")


def at_frame(number: int, action: str) -> str:
    return f"""
import ctypes, time
from stream.capture.video.decode import FrameMaker
make = FrameMaker.make
def sabotaged(self, *args, **keywords):
    if self.count == {number}:
        {action}
    return make(self, *args, **keywords)
FrameMaker.make = sabotaged
"""


CRASH, HANG = "ctypes.string_at(0)", "time.sleep(3600)"


def test_a_video_with_sound_is_the_same(tmp_path: Path) -> None:
    same_in_a_sandbox(write_video(tmp_path / "clip.mp4", b_frames=2, audio_s=0.6), start=0.08, end=0.4)


def test_sound_that_an_output_would_have_to_decode_is_left_out(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", audio_s=0.6, audio_codec="pcm_s16le")
    said: list[str] = []
    stream.run(path, sandbox=True, output=tmp_path / "out.mp4", on_note=said.append)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
    assert "audio: mp4 cannot take pcm_s16le as it is, and sandboxed sound is not decoded: left out" in said


def test_a_folder_is_the_same_with_what_cannot_be_read(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"{number}.png", scene(40 + 8 * number, 64))
    save_heic(tmp_path / "6.heic", scene())
    (tmp_path / "3.png").write_bytes((tmp_path / "2.png").read_bytes()[:90])
    (tmp_path / "notes.txt").write_text("no image")
    same_in_a_sandbox(save(tmp_path / "photo.jpg", scene(), exif=exif(28)))
    (tmp_path / "photo.jpg").unlink()
    same_in_a_sandbox(tmp_path, fps=25, max_frames=5)


@pytest.mark.slow
def test_linear_light_is_the_same(tmp_path: Path) -> None:
    for suffix in (".hdr", ".exr", ".pfm"):
        path = linear(tmp_path / f"a{suffix}", scene(40, 64).astype(np.float32) / 99)
        with closing(open_source(str(path))) as plain, closing(opened(path)) as confined:
            assert np.array_equal(next(iter(confined)).rgb, next(iter(plain)).rgb)
    same_in_a_sandbox(tmp_path)


def test_an_animation_is_the_same(tmp_path: Path) -> None:
    path = animated(tmp_path / "a.webp", [scene(40, 64), scene(40, 64)[::-1]], [40, 120], lossless=True)
    same_in_a_sandbox(path)


def test_a_pipe_is_decoded_as_it_arrives(tmp_path: Path) -> None:
    data = write_video(tmp_path / "clip.mkv", frames=FRAMES).read_bytes()
    with piped(data) as reading, as_stdin(reading), closing(opened("-")) as source:
        assert [number_of(frame.rgb) for frame in source] == list(range(FRAMES))
        assert source.info.name == "stdin"


@pytest.mark.slow
def test_one_picture_that_crashes_hangs_or_eats_memory_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    names = ["a.png", "crash.png", "d.png", "hang.png", "i.png", "memory.png", "z.png"]
    for number, name in enumerate(names):
        save(tmp_path / "in" / name, numbered(number, (48, 64)))
    sabotage(
        monkeypatch,
        f"""
import ctypes, time
from stream.capture.stills import source
open_picture = source.open_picture
def sabotaged(path, **keywords):
    if path.name == "crash.png":
        {CRASH}
    if path.name == "hang.png":
        {HANG}
    if path.name == "memory.png":
        kept = [bytearray(1 << 28) for _ in range(1000)]
    return open_picture(path, **keywords)
source.open_picture = sabotaged
""",
    )
    monkeypatch.setattr(process, "PATIENCE_S", 5.0)  # the others take 0.3 s, and ten times that on a busy machine
    monkeypatch.setattr(sandbox, "MEMORY_BYTES", 1 << 29)
    said: list[str] = []
    report = stream.run(
        tmp_path / "in", sandbox=True, output=tmp_path / "out", picture="none", save="npy", on_note=said.append
    )
    reasons = {one["name"]: one["reason"] for one in report.skipped}
    assert report.outcome is Outcome.DONE_WITH_SKIPS
    assert (report.captured, report.written) == (7, 4)
    assert list(reasons) == ["crash.png", "hang.png", "memory.png"]
    assert "SIGSEGV" in reasons["crash.png"]
    assert "no picture for 5 s" in reasons["hang.png"]
    assert "not enough memory" in reasons["memory.png"]
    assert any("SIGSEGV; decoded again, one image at a time" in note for note in said)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.npy", "d.npy", "i.npy", "z.npy"]


def test_a_video_ends_in_order_with_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, at_frame(7, CRASH))
    path = write_video(tmp_path / "clip.mp4", frames=FRAMES, audio_s=0.5)
    report = stream.run(path, sandbox=True, output=tmp_path / "out.mp4")
    assert (report.outcome, report.written) == (Outcome.DONE_WITH_SKIPS, 7)
    (skipped,) = report.skipped
    assert skipped["name"] == str(path)
    assert "was killed by SIGSEGV after 7 frames" in skipped["reason"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 7


def test_a_child_that_is_killed_is_one_skipped_input(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=200)
    with closing(opened(path)) as source:
        assert isinstance(source, sandbox.SandboxedSource)
        frames = iter(source)
        seen = [next(frames)]
        os.kill(source.pid, signal.SIGKILL)
        seen += frames
        assert 0 < len(seen) < 100
        assert [one.name for one in source.log.skipped] == [str(path)]
        assert "SIGKILL, perhaps because memory ran out" in source.log.skipped[0].reason


def test_a_crash_before_the_first_frame_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, at_frame(0, CRASH))
    path = write_video(tmp_path / "clip.mp4")
    with pytest.raises(SourceError, match=r"clip\.mp4: the sandbox that decoded it was killed by SIGSEGV"):
        opened(path)


def test_a_sandbox_that_cannot_start_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / name, scene())
    monkeypatch.setattr(process, "START", "raise ImportError('no http://u:secret@host/') # {path} {line} {life}")
    with pytest.raises(SourceError, match=r"^--sandbox: the sandbox cannot be started: .*: ImportError: no http") as e:
        opened(tmp_path)
    assert "secret" not in str(e.value)


def test_an_error_of_the_source_is_the_same_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    with pytest.raises(UsageError) as plain:
        open_source(str(path), options=CaptureConfig(start=100))
    with pytest.raises(UsageError) as confined:
        opened(path, start=100)
    assert str(confined.value) == str(plain.value)
    assert type(confined.value) is type(plain.value)


def test_no_child_outlives_its_source_or_the_program(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=200)
    source = opened(path)
    assert isinstance(source, sandbox.SandboxedSource)
    next(iter(source))
    source.interrupt()
    assert list(source) == []
    source.close()
    source.close()
    with pytest.raises(ProcessLookupError):
        os.kill(source.pid, 0)
    code = f"""
import sys
from stream.capture.sandbox import process
from tests.capture.test_sandbox import at_frame, HANG
head, mark, rest = process.START.partition("from stream.capture.sandbox.child")
process.START = head + at_frame(0, HANG).replace("{{", "{{{{").replace("}}", "}}}}") + mark + rest
started = process.Process.__init__
def say(self, *args, **keywords):
    started(self, *args, **keywords)
    print(self.pid, flush=True)
process.Process.__init__ = say
from tests.capture.test_sandbox import opened
opened({str(path)!r})
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        child = os.pidfd_open(int(program.stdout.readline()))
        program.kill()
    try:
        assert select.select([child], [], [], 20)[0]
    finally:
        os.close(child)


@pytest.mark.parametrize("text", ["cam:0", "pattern:smptebars", "rtsp://127.0.0.1:1/x"])
def test_what_is_not_decoded_in_a_sandbox_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--sandbox: does not apply .*allowed: files, folders"):
        opened(text)


def test_images_in_memory_and_other_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = CaptureConfig(sandbox=True)
    with pytest.raises(UsageError, match="does not apply to images in memory"):
        open_images(Images([scene()]), options=options)
    path = save(tmp_path / "a.png", scene())
    with closing(open_images(Images([path]), options=options)) as source:
        assert [frame.rgb.tobytes() for frame in source] == [scene().tobytes()]
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UsageError, match="--sandbox: needs Linux"):
        opened(path)


# --- a child that is hostile ---

INFO: dict[str, Any] = {
    "size": [48, 64],
    "is_live": False,
    "time_base": [1, 25],
    "kind": "video",
    "not_kept": "",
    "notes": [],
}
FRAME: dict[str, Any] = {"slot": 0, "height": 48, "width": 64, "index": 0, "pts": 0, "captured_at": 0.0}
TRACK: dict[str, Any] = {
    "codec": "aac",
    "rate": 48_000,
    "layout": "stereo",
    "header": "",
    "ticks": [1, 48_000],
    "disposition": 0,
    "metadata": {},
}
CONFINED: dict[str, Any] = {"confined": True, "missing": {}}
ROOM = {"room": 48 * 64 * 3}


def sent(*messages: dict[str, Any]) -> bytes:
    return b"".join(wire.packed(message) for message in (CONFINED, *messages))


def hostile(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    """Have the child send the content of a file, and read nothing."""
    code = f"import socket, time\nline = socket.socket(fileno={{line}})\nline.sendall(open({str(data)!r}, 'rb').read())"
    monkeypatch.setattr(process, "START", f"{code}\ntime.sleep(3600)")


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 64,
        (1 << 19).to_bytes(4, "little") + bytes(4) + b"[" * (1 << 19),
        b"\4\0\0\0\0\0\0\0\x80\4N.",  # a pickle
        sent({"info": INFO | {"kind": "camera"}}),
        sent({"info": INFO | {"is_live": True}}),
        sent({"info": INFO | {"size": [48, 0]}}),
        sent({"info": INFO | {"time_base": [1, 0]}}),
        sent({"info": INFO | {"rate": ["1", 2]}}),
        sent({"info": INFO | {"audio": {"tracks": [{"codec": "aac", "rate": -1}]}}}),
        sent({"info": INFO}, FRAME),  # no memory for it
        sent({"info": INFO}, {"room": 1 << 62}),
        sent({"info": INFO}, ROOM, FRAME | {"slot": 99}),
        sent({"info": INFO}, ROOM, FRAME | {"height": 1 << 29}),
        sent({"info": INFO}, ROOM, FRAME | {"width": 4096}),
        sent({"info": INFO}, ROOM, FRAME | {"pts": 1 << 70}),
        sent({"info": INFO}, ROOM, FRAME | {"index": True}),
        sent({"info": INFO}, {"log": {"notes": ["x"] * 20_000}}),
        sent({"info": INFO}, {"log": {"repaired_pts": -1}}),
        sent({"error": "SystemExit", "what": 1, "where": "", "allowed": "", "hint": ""}),
        sent({"unknown": 1}),
        sent(CONFINED),
        wire.packed({"info": INFO}),
        wire.packed(CONFINED | {"missing": {"landlock": "text"}}),
        sent({"info": INFO | {"audio": {"tracks": [TRACK]}}}, {"sound": 1}),
    ],
)
def test_a_hostile_child_is_ended_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    (tmp_path / "data").write_bytes(data)
    hostile(monkeypatch, tmp_path / "data")
    with pytest.raises(SourceError, match="broke the sandbox's rules"):
        opened(write_video(tmp_path / "clip.mp4", frames=1))


def test_a_hostile_child_cannot_go_back_in_time_nor_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=1)
    for later in ([FRAME], [FRAME | {"index": 1, "pts": 0}], [FRAME | {"index": n, "pts": n} for n in range(1, 9999)]):
        (tmp_path / "data").write_bytes(sent({"info": INFO}, ROOM, FRAME, *later, {"unknown": 1}))
        hostile(monkeypatch, tmp_path / "data")
        with closing(opened(path)) as source:
            frames: Sequence[Frame] = list(source)
            assert len(frames) < 9999
            assert all(np.all(frame.rgb == 0) for frame in frames)
            assert "broke the sandbox's rules" in source.log.skipped[0].reason


@pytest.mark.parametrize(
    "wrong", [{"codec": "h264"}, {"codec": "nothing"}, {"layout": "2000000000 channels"}, {"layout": "x" * 200}]
)
def test_a_track_that_cannot_be_is_left_out(wrong: dict[str, Any]) -> None:
    said: list[str] = []
    sound = Sound(Fields({"tracks": [TRACK | wrong, TRACK]}), said.append)
    assert sound.audio is not None
    assert [track.codec_context.layout.name for track in sound.audio.tracks] == ["stereo"]
    assert "1 of 2 audio tracks are left out" in said[0]


def test_sound_without_a_picture_does_not_extend_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packet = {"sound": 0, "pts": 0, "dts": 0, "duration": 1, "ticks": [1, 48_000], "key": True}
    data = tmp_path / "data"
    data.write_bytes(sent({"info": INFO | {"audio": {"tracks": [TRACK]}}}))
    hostile(monkeypatch, data)
    endless = f"import time\nwhile True:\n    line.sendall({wire.packed(packet)!r})\n    time.sleep(0.01)\n"
    endless = endless.replace("{", "{{").replace("}", "}}")
    monkeypatch.setattr(process, "START", process.START.replace("time.sleep(3600)", endless))
    monkeypatch.setattr(process, "PATIENCE_S", 0.5)
    with pytest.raises(SourceError, match=r"delivered no picture for 0\.5 s"):
        opened(write_video(tmp_path / "clip.mp4", frames=1))


# --- what a child may still do ---

PROBE = """
import ctypes, errno, fcntl, json, os, resource, signal, socket, struct, subprocess, sys, threading
import urllib.request
from stream.capture.sandbox.confine import confine
given, other, folder, parent = sys.argv[1:]
line = socket.socketpair()[0]
own = struct.pack("i", int(parent))
libc = ctypes.CDLL(None, use_errno=True)
def call(number):
    libc.syscall(number, -1, -1, -1, -1, -1, -1)
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), "")
missing = confine([given], memory_bytes=1 << 30)
found = {}
def attempt(name, call):
    try:
        call()
    except (OSError, MemoryError, ValueError) as error:
        found[name] = type(error).__name__
    else:
        found[name] = "done"
attempt("read the input", lambda: open(given, "rb").read())
attempt("import", lambda: __import__("wave"))
attempt("start a thread", lambda: threading.Thread(target=int).start())
attempt("read another file", lambda: open(other).read())
attempt("list the folder", lambda: os.listdir(folder))
attempt("read the parent's environment", lambda: open(f"/proc/{parent}/environ", "rb").read())
attempt("write the input", lambda: open(given, "r+b"))
attempt("create a file", lambda: open(folder + "/new", "w"))
attempt("create shared memory", lambda: open("/dev/shm/depthstream-new", "w"))
attempt("remove", lambda: os.unlink(other))
attempt("rename", lambda: os.rename(other, other + "2"))
attempt("link", lambda: os.symlink(other, folder + "/link"))
attempt("make a folder", lambda: os.mkdir(folder + "/sub"))
attempt("change rights", lambda: os.chmod(other, 0o777))
attempt("tcp", lambda: socket.create_connection(("127.0.0.1", 9), 1))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("unix socket", lambda: socket.socket(socket.AF_UNIX))
attempt("run a program", lambda: subprocess.run(["true"]))
attempt("fork", os.fork)
attempt("signal the parent", lambda: os.kill(int(parent), 0))
for request in 0x8901, 0x8902:
    attempt(f"have the kernel signal the parent ({request})", lambda: fcntl.ioctl(line, request, own))
attempt("ask for signals", lambda: fcntl.ioctl(line, 0x5452, struct.pack("i", 1)))
attempt("type on a terminal", lambda: fcntl.ioctl(line, 0x5412, b"x"))
attempt("choose the signal", lambda: fcntl.fcntl(line, fcntl.F_SETSIG, signal.SIGKILL))
attempt("change flags", lambda: fcntl.fcntl(line, fcntl.F_SETFL, os.O_ASYNC))
attempt("lock the input", lambda: fcntl.lockf(open(given, "rb"), fcntl.LOCK_SH))
attempt("move the parent to a core", lambda: os.sched_setaffinity(int(parent), os.sched_getaffinity(0)))
attempt("slow the parent down", lambda: os.setpriority(os.PRIO_PROCESS, int(parent), 0))
if os.uname().machine == "x86_64":
    NUMBERS = (16, 72, 203, 144, 142, 314, 251, 256, 279, 440, 103, 320, 172, 173, 167, 168, 163, 169, 164, 227,
               442, 432, 431, 430, 428, 429, 321, 298, 323, 250, 248, 249, 179, 294, 206, 275, 312, 463, 468)
    for number in NUMBERS:
        ctypes.set_errno(0)
        attempt(f"system call {number}", lambda: call(number))
        if ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
            found[f"system call {number}"] = "done"
attempt("take memory", lambda: bytearray(2 << 30))
attempt("raise the limit of memory", lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40)))
os.write(1, json.dumps([missing, found]).encode())
"""
PERMITTED = {"read the input", "import", "start a thread"}
FILES = {"read another file", "list the folder", "read the parent's environment"}
"""Only Landlock can refuse these."""
NO_LANDLOCK = """
import ctypes, errno, struct
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | errno.ENOSYS), (0x06, 0, 0, 0x7fff0000)]
code = b"".join(struct.pack("=HBBI", *step) for step in steps)
buffer = ctypes.create_string_buffer(code, len(code))
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))
libc = ctypes.CDLL(None)
assert not libc.prctl(38, 1, 0, 0, 0)
assert not libc.prctl(22, 2, ctypes.byref(Program(len(steps), ctypes.addressof(buffer))), 0, 0)
"""
"""Has the kernel answer as one without Landlock."""


def probed(folder: Path, prelude: str = "") -> tuple[dict[str, int], dict[str, str]]:
    """What `confine` could not limit, and what each attempt came to."""
    for name in ("given", "other"):
        (folder / name).write_text(name)
    arguments = [str(folder / "given"), str(folder / "other"), str(folder), str(os.getpid())]
    found = subprocess.run(
        [sys.executable, "-c", prelude + PROBE, *arguments],
        env={**os.environ, **process.ONE_THREAD},
        capture_output=True,
        check=True,
    )
    missing, results = json.loads(found.stdout)
    assert sorted(path.name for path in folder.iterdir()) == ["given", "other"]
    return missing, results


def has_landlock() -> bool:
    import ctypes

    return ctypes.CDLL(None).syscall(444, None, 0, 1) > 0


def test_nothing_can_be_written_reached_or_run_from_inside(tmp_path: Path) -> None:
    missing, found = probed(tmp_path)
    done = {name for name, result in found.items() if result == "done"}
    assert done == PERMITTED | (set() if has_landlock() else FILES)
    assert bool(missing) is not has_landlock()


def test_without_landlock_the_rest_holds_and_that_is_said(tmp_path: Path) -> None:
    missing, found = probed(tmp_path, NO_LANDLOCK)
    assert {name for name, result in found.items() if result == "done"} == PERMITTED | FILES
    assert missing == {"landlock": errno.ENOSYS}


def test_a_note_says_what_this_kernel_cannot_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    sabotage(monkeypatch, NO_LANDLOCK)
    with closing(opened(write_video(tmp_path / "clip.mp4", frames=2))) as source:
        assert len(list(source)) == 2
    assert notes == ["--sandbox: this kernel cannot limit which files can be read (Landlock: not in this kernel)"]


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Every child has been waited for."""
    before = psutil.Process().children()
    yield
    assert psutil.Process().children() == before

"""Hardware decoding: asked for by name or `auto`, refused or fallen back from, never silently."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stream.capture.base import CaptureLog
from stream.capture.open import open_source
from stream.capture.video import hwaccel
from stream.capture.video.file import VideoSource
from stream.cli.main import invoke
from stream.config import CaptureConfig
from stream.errors import SourceError, UsageError
from stream.frames import SourceKind
from stream.media import av, to_rgb
from tests.support.media_files import write_video


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", frames=5)


def test_a_device_that_ffmpeg_does_not_know_is_refused(clip: Path) -> None:
    with pytest.raises(UsageError, match=r"--hwaccel: .*'toaster' \(allowed: off, auto"):
        open_source(str(clip), options=CaptureConfig(hwaccel="toaster"))


def test_a_device_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch, clip: Path) -> None:
    monkeypatch.setattr(av.codec.hwaccel, "hwdevices_available", lambda: ["vulkan"])  # built in, but without a device
    with pytest.raises(UsageError, match=r"--hwaccel: vulkan: there is no such device, .*; use --hwaccel auto or off"):
        open_source(str(clip), options=CaptureConfig(hwaccel="vulkan"))


def test_a_video_that_the_device_does_not_decode_is_an_error(clip: Path) -> None:
    with pytest.raises(SourceError, match=r"clip\.mp4: vulkan cannot decode this video; use --hwaccel auto or off"):
        VideoSource(clip, decoder="vulkan")


@pytest.mark.parametrize(("has_device", "why"), [(False, "this machine has"), (True, "vulkan cannot decode")])
def test_auto_falls_back_to_the_cpu_notes_it_and_counts_it(
    has_device: bool, why: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hwaccel, "_supported", lambda: ["vulkan"])
    monkeypatch.setattr(hwaccel, "_is_available", lambda _name: has_device)
    source = VideoSource(clip, decoder="auto")
    assert len(list(source)) == 5
    source.close()
    assert source.log.decoder_fallbacks == 1
    (note,) = source.info.notes
    assert note.startswith(f"--hwaccel auto: {why}")
    assert note.endswith("; decoding on the CPU")


def test_a_profile_that_the_device_does_not_take_is_told_at_the_first_frame() -> None:
    log = CaptureLog()
    for device_format in ("cuda", "vaapi", "d3d11va_vld"):
        hwaccel.check_first_frame(SimpleNamespace(is_hwaccel=True, pix_fmt=device_format, name="h264"), log)  # type: ignore[arg-type]
    hwaccel.check_first_frame(SimpleNamespace(is_hwaccel=False, pix_fmt="yuv422p", name="h264"), log)  # type: ignore[arg-type]
    assert (log.notes, log.decoder_fallbacks) == ([], 0)
    hwaccel.check_first_frame(SimpleNamespace(is_hwaccel=True, pix_fmt="yuv422p", name="h264"), log)  # type: ignore[arg-type]
    assert log.notes == ["--hwaccel auto: the device cannot decode h264 with yuv422p; decoding on the CPU"]
    assert log.decoder_fallbacks == 1


def test_a_device_that_takes_only_another_stream_is_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyAV lets it pass then; here a container that was opened without any device stands for that."""
    opened = []

    def without_device(address: str, **options: object) -> object:
        opened.append(av.open(address))
        return opened[-1]

    monkeypatch.setattr(hwaccel, "open_input", without_device)
    with pytest.raises(SourceError, match="vulkan cannot decode this video"):
        hwaccel.open_container(str(clip), "vulkan", CaptureLog())
    with pytest.raises(AssertionError, match="not open"):
        opened[0].seek(0)


def test_the_fallback_is_in_the_report(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    import json

    monkeypatch.setattr(hwaccel, "_supported", list)
    report = tmp_path / "report.json"
    arguments = ["run", str(clip), "-o", str(tmp_path / "d.mp4"), "--hwaccel", "auto", "--report", str(report)]
    assert invoke(arguments) == 0
    assert json.loads(report.read_text())["counters"]["decoder_fallbacks"] == 1
    assert "this machine has no hardware decoder; decoding on the CPU" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["pattern:testsrc2", "cam:0"])
def test_what_needs_no_video_decoder_refuses_one(source: str) -> None:
    with pytest.raises(UsageError, match=r"--hwaccel: .* needs no video decoder"):
        open_source(source, options=CaptureConfig(hwaccel="cuda"))


@pytest.mark.parametrize(("planar", "downloaded"), [("yuv420p", "nv12"), ("yuv420p10le", "p010le")])
def test_what_hardware_decoders_deliver_becomes_the_same_picture(planar: str, downloaded: str) -> None:
    across, down = np.meshgrid(np.linspace(0, 255, 128), np.linspace(0, 255, 96))
    rgb = np.stack([across, down, 255 - across], 2).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=planar)
    same = frame.reformat(format=downloaded)
    for delivered in (frame, same):
        assert np.abs(to_rgb(delivered).astype(int) - rgb).max() <= 6  # a wrong matrix or range: 20 and more


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_decodes_what_the_processor_decodes(clip: Path) -> None:
    log = CaptureLog()
    container = hwaccel.open_container(str(clip), "cuda", log)
    source = VideoSource(clip, container=container, log=log, kind=SourceKind.VIDEO)
    for ours, theirs in zip(source, VideoSource(clip), strict=True):
        assert (ours.pts, ours.size) == (theirs.pts, theirs.size)
        assert np.abs(ours.rgb.astype(int) - theirs.rgb).max() <= 8
    source.close()

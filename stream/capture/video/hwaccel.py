"""Hardware decoding: lists the devices and opens containers with one.

Frames are copied back to the CPU's memory, where the pipeline starts. That pays off where decoding takes most of the
CPU time: H.265, AV1 and 4K.
Invariant: a decoder that the user names is used or refused; `auto` falls back to the CPU with a note and counts it.
"""

from typing import TYPE_CHECKING, Any

from stream.capture.base import CaptureLog
from stream.capture.limits import Limits
from stream.capture.video.decode import choose_video_stream, decoder_pixels
from stream.errors import SourceError, UsageError, redacted
from stream.media import av, open_input

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext

OFF, AUTO = "off", "auto"
DEVICES = ("cuda", "videotoolbox", "d3d11va", "vaapi", "vulkan")
"""FFmpeg's device names, in the order in which `auto` tries them."""
_PROBE_CODEC = "h264"
"""A codec that every hardware decoder supports."""
_DEVICE_FORMATS = frozenset({"cuda", "videotoolbox_vld", "d3d11", "d3d11va_vld", "vaapi", "vulkan"})
"""Pixel formats of frames in device memory (FFmpeg's pixdesc.c)."""


def check(name: str) -> None:
    """Check that the decoder `name` can be used on this machine.

    Raises:
        UsageError: this FFmpeg does not support such a device, or the machine has none.
    """
    if name in (OFF, AUTO):
        return
    if name not in (supported := _supported()):
        what = f"this build of FFmpeg does not support {name!r}"
        raise UsageError(what, where="--hwaccel", allowed=", ".join((OFF, AUTO, *supported)))
    if not _is_available(name):
        what = f"{name}: there is no such device, or its driver is missing"
        raise UsageError(what, where="--hwaccel", hint="use --hwaccel auto or off")


def open_container(
    address: str, hwaccel: str, log: CaptureLog, *, limits: Limits | None = None, **options: Any
) -> "InputContainer":
    """Open a container for reading with `open_input`.

    Args:
        address: path or URL.
        hwaccel: `off`, `auto`, or a device that passed `check`.
        log: a fallback to the CPU is noted and counted here.
        limits: of the pictures that are decoded to find out what the container holds.
        options: passed to `open_input`.

    Raises:
        SourceError: the device cannot decode this video.
        OSError: see `open_input`.
    """
    most = {"max_pixels": str(decoder_pixels(limits or Limits()))}
    options["options"] = most | (options.get("options") or {})
    if hwaccel == OFF:
        return open_input(address, **options)
    is_auto = hwaccel == AUTO
    device = next(filter(_is_available, _supported()), None) if is_auto else hwaccel
    if device is None:
        _fall_back(log, "this machine has no hardware decoder")
        return open_input(address, **options)
    accelerator = av.codec.hwaccel.HWAccel(device, allow_software_fallback=is_auto)
    try:
        container = open_input(address, hwaccel=accelerator, **options)
    except RuntimeError as error:  # raised by PyAV if the device supports no stream
        raise _refused(device, address) from error
    try:
        # PyAV accepts the device if it supports any stream, even cover art.
        if not choose_video_stream(container, _shown(address)).codec_context.is_hwaccel:
            if not is_auto:
                raise _refused(device, address)
            _fall_back(log, f"{device} cannot decode this video")
    except SourceError:
        container.close()
        raise
    return container


def check_first_frame(decoder: "VideoCodecContext", log: CaptureLog) -> None:
    """Call after decoding the first frame; only then do we know whether the device supports the stream's profile.

    With `auto`, the CPU has decoded the frame if not. A device that the user named delivers no frame then.
    """
    if decoder.is_hwaccel and decoder.pix_fmt not in _DEVICE_FORMATS:
        _fall_back(log, f"the device cannot decode {decoder.name} with {decoder.pix_fmt}")


def _refused(device: str, address: str) -> SourceError:
    hint = "use --hwaccel auto or off"
    return SourceError(f"{device} cannot decode this video", where=_shown(address), hint=hint)


def _shown(address: str) -> str:
    return redacted(address.removeprefix("file:"))


def _fall_back(log: CaptureLog, why: str) -> None:
    log.notes.append(f"--hwaccel auto: {why}; decoding on the CPU")
    log.decoder_fallbacks += 1


def _supported() -> list[str]:
    built_in = av.codec.hwaccel.hwdevices_available()
    return [name for name in DEVICES if name in built_in]


def _is_available(name: str) -> bool:
    try:
        av.codec.hwaccel.HWAccel(name).create(av.Codec(_PROBE_CODEC, "r"))
    except (av.error.FFmpegError, RuntimeError, NotImplementedError):  # there is no device, or it cannot decode
        return False
    return True

"""Decoding with a GPU or a media chip: which there are, and containers opened with one.

Frames come back to the processor's memory, where the pipeline starts; that is worth it where decoding is what the
processor spends its time on: H.265, AV1 and 4K.
Invariant: a decoder that is named is used or refused; `auto` goes on with the processor, says so and counts it.
"""

from typing import TYPE_CHECKING, Any

from stream.capture.base import CaptureLog
from stream.capture.video.decode import choose_video_stream, shown
from stream.errors import SourceError, UsageError
from stream.media import av

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext

OFF, AUTO = "off", "auto"
DEVICES = ("cuda", "videotoolbox", "d3d11va", "vaapi", "vulkan")
"""FFmpeg's names, in the order in which `auto` tries them."""
_PROBE_CODEC = "h264"
"""Every such device decodes it."""
_DEVICE_FORMATS = frozenset({"cuda", "videotoolbox_vld", "d3d11", "d3d11va_vld", "vaapi", "vulkan"})
"""Pixel formats of a decoder whose pictures lie in a device's memory (FFmpeg's pixdesc.c)."""


def check(name: str) -> None:
    """See that `name` can be asked for here.

    Raises:
        UsageError: this FFmpeg knows no such device, or the machine has none.
    """
    if name in (OFF, AUTO):
        return
    if name not in (known := _known()):
        what = f"this FFmpeg decodes nothing with {name!r}"
        raise UsageError(what, where="--hwaccel", allowed=", ".join((OFF, AUTO, *known)))
    if not _is_here(name):
        what = f"{name}: no such device here, or its driver is missing"
        raise UsageError(what, where="--hwaccel", hint="use --hwaccel auto or off")


def open_container(address: str, hwaccel: str, log: CaptureLog, **options: Any) -> "InputContainer":
    """`av.open` for reading, decoding with `hwaccel`: `off`, `auto` or a device that passed `check`.

    Args:
        log: told where the processor decodes after all.

    Raises:
        SourceError: the device does not decode this video.
        OSError: see `av.open`; FFmpeg's errors are of this kind.
    """
    if hwaccel == OFF:
        return _opened(address, **options)
    is_auto = hwaccel == AUTO
    device = next(filter(_is_here, _known()), None) if is_auto else hwaccel
    if device is None:
        _fall_back(log, "there is no hardware decoder here")
        return _opened(address, **options)
    accelerator = av.codec.hwaccel.HWAccel(device, allow_software_fallback=is_auto)
    try:
        container = _opened(address, hwaccel=accelerator, **options)
    except RuntimeError as error:  # what PyAV says if no stream is for the device
        raise _refused(device, address) from error
    try:
        # PyAV is content with any stream, be it cover art, that the device takes.
        if not choose_video_stream(container, shown(address)).codec_context.is_hwaccel:
            if not is_auto:
                raise _refused(device, address)
            _fall_back(log, f"{device} does not decode this video")
    except SourceError:
        container.close()
        raise
    return container


def check_first_frame(decoder: "VideoCodecContext", log: CaptureLog) -> None:
    """To be called when the first frame has been decoded: only now it is known whether the device takes its profile,
    too. With `auto` the processor has decoded it otherwise; a device that was named gives no frame."""
    if decoder.is_hwaccel and decoder.pix_fmt not in _DEVICE_FORMATS:
        _fall_back(log, f"the device does not decode {decoder.name} with {decoder.pix_fmt}")


def _refused(device: str, address: str) -> SourceError:
    hint = "use --hwaccel auto or off"
    return SourceError(f"{device} does not decode this video", where=shown(address), hint=hint)


def _opened(address: str, **options: Any) -> "InputContainer":
    container: InputContainer = av.open(address, **options)
    return container


def _fall_back(log: CaptureLog, why: str) -> None:
    log.notes.append(f"--hwaccel auto: {why}; the processor decodes")
    log.decoder_fallbacks += 1


def _known() -> list[str]:
    built_in = av.codec.hwaccel.hwdevices_available()
    return [name for name in DEVICES if name in built_in]


def _is_here(name: str) -> bool:
    try:
        av.codec.hwaccel.HWAccel(name).create(av.Codec(_PROBE_CODEC, "r"))
    except (av.error.FFmpegError, RuntimeError, NotImplementedError):  # no device, or none that decodes
        return False
    return True

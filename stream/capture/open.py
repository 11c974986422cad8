"""Opens the source that a text names.

Invariant: an option that the source cannot honour is refused, never ignored.
"""

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from fractions import Fraction
from functools import partial
from pathlib import Path

from stream.capture.base import Source
from stream.capture.parse import ParsedSource, SourceForm, parse_source
from stream.config import CaptureConfig, defaults
from stream.errors import SourceError, UsageError


def open_source(text: str, *, options: CaptureConfig | None = None) -> Source:
    """Open the source that `text` names; see `parse_source` for its forms.

    Raises:
        SourceNotFoundError: the source does not exist.
        SourceError: it exists but cannot be read.
        UsageError: the text is invalid, or an option does not apply to such a source.
    """
    options = options or CaptureConfig()
    source = _open(parse_source(text), options)
    if not options.mirror:
        return source
    from stream.capture.mirror import MirroredSource

    return MirroredSource(source)


def _open(parsed: ParsedSource, options: CaptureConfig) -> Source:
    if parsed.form is SourceForm.CAMERA:
        return _open_camera(parsed, options)
    if parsed.form is SourceForm.PATTERN:
        return _open_pattern(parsed.value, options)
    if parsed.form is SourceForm.NETWORK:
        return _open_network(parsed.value, options)
    if parsed.form in (SourceForm.FOLDER, SourceForm.GLOB, SourceForm.LIST):
        return _open_stills(parsed.value, options)
    return _open_file(parsed, options)


def _open_camera(parsed: ParsedSource, options: CaptureConfig) -> Source:
    from stream.capture.camera import CameraSource

    _refuse(options, "a camera", "fps", "start", "hwaccel")

    def opened(_within_s: float = 0.0) -> Source:
        return CameraSource(
            int(parsed.value) if parsed.value.isdecimal() else parsed.value,
            size_hw=options.camera_size and options.camera_size[::-1],
            rate=exact_rate(options.camera_fps),
            fourcc=options.camera_fourcc,
            read_timeout_s=options.read_timeout_s,
            end_s=options.end,
            max_frames=options.max_frames,
        )

    limited = options.end is not None or options.max_frames is not None
    if not options.reconnect_for_s or limited:
        return opened()
    from stream.capture.reconnect import ReconnectingSource

    return ReconnectingSource(opened(), opened, give_up_after_s=options.reconnect_for_s, ends=True)


def _open_pattern(name: str, options: CaptureConfig) -> Source:
    from stream.capture.pattern import RATE, PatternSource

    _refuse(options, "a pattern", "fps", "start", "hwaccel")
    limits = [options.max_frames] if options.max_frames is not None else []
    if options.end is not None:
        limits.append(max(1, math.ceil(options.end * RATE)))
    return PatternSource(
        name,
        max_frames=min(limits, default=None),
    )


def _open_network(url: str, options: CaptureConfig) -> Source:
    from stream.capture.video.network import Liveness, open_network

    _refuse(options, "a network source", "fps")
    decoder = _checked_decoder(options)
    source = _open_interruptibly(
        partial(
            open_network,
            url,
            live=Liveness(options.live),
            open_timeout_s=options.open_timeout_s,
            read_timeout_s=options.read_timeout_s,
            start_s=options.start,
            end_s=options.end,
            max_frames=options.max_frames,
            decoder=decoder,
        )
    )
    if not source.info.is_live:
        return source
    try:
        _refuse(options, "a live stream", "start", "end")
    except UsageError:
        source.close()
        raise
    return _with_reconnection(source, url, options) if options.reconnect_for_s else source


def _open_interruptibly(open_it: Callable[[], Source]) -> Source:
    """Call `open_it` in a thread, so that Ctrl-C ends the wait at once; the thread ends at its own time limit."""
    opened: Future[Source] = Future()

    def run() -> None:
        try:
            opened.set_result(open_it())
        except BaseException as error:  # noqa: BLE001  handed to the caller, who re-raises it
            opened.set_exception(error)

    threading.Thread(target=run, name="depthstream-open", daemon=True).start()
    try:
        while True:
            done, _ = wait([opened], 0.1)  # an endless wait does not react to Ctrl-C on every system
            if done:
                return opened.result()
    except KeyboardInterrupt:
        opened.add_done_callback(_close_late)
        raise


def _close_late(opened: "Future[Source]") -> None:
    if opened.exception() is None:
        opened.result().close()


def _with_reconnection(source: Source, url: str, options: CaptureConfig) -> Source:
    """Wrap a live stream so that it is opened again when it breaks."""
    from stream.capture.reconnect import ReconnectingSource
    from stream.capture.video.network import Liveness, end_may_be_restart, open_network

    def reopen(within_s: float) -> Source:
        limit_s = min(options.open_timeout_s, within_s)
        return open_network(
            url,
            live=Liveness.LIVE,
            open_timeout_s=limit_s,
            read_timeout_s=options.read_timeout_s,
            decoder=_checked_decoder(options),
        )

    return ReconnectingSource(
        source,
        reopen,
        give_up_after_s=options.reconnect_for_s,
        ends=not end_may_be_restart(url),
        max_frames=options.max_frames,
    )


def _open_stills(text: str, options: CaptureConfig) -> Source:
    from stream.capture.stills.find import find_pictures
    from stream.capture.stills.source import ImagesSource

    _refuse(options, "a still image", "start", "end", "hwaccel")
    found = find_pictures(text, recursive=options.recursive)
    return ImagesSource(
        found.paths,
        name=text,
        root=found.root,
        rate=exact_rate(options.fps),
        max_frames=options.max_frames,
        max_pixels=options.max_pixels,
        ignored=found.ignored,
        ignored_because=found.ignored_because,
    )


def _open_file(parsed: ParsedSource, options: CaptureConfig) -> Source:
    """Open one file; its content decides if the suffix is not that of an image, and if an image is an animation."""
    from stream.capture.stills import animation
    from stream.capture.stills.picture import is_picture, open_picture

    path = Path(parsed.value)
    _check_readable(path)
    if parsed.form is SourceForm.VIDEO and not is_picture(path):
        return _open_video(path, options)
    with open_picture(path, max_pixels=options.max_pixels) as picture:
        is_gif = picture.format == "GIF"
        is_animation = (is_gif or picture.format in animation.FORMATS) and picture.frame_count > 1
    if not is_animation:
        return _open_stills(parsed.value, options)
    if is_gif:
        return _open_video(path, options)
    _refuse(options, "an animation", "fps", "hwaccel")
    return animation.AnimatedSource(
        path,
        start_s=options.start,
        end_s=options.end,
        max_frames=options.max_frames,
        max_pixels=options.max_pixels,
    )


def _open_video(path: Path, options: CaptureConfig) -> Source:
    from stream.capture.video.file import VideoSource

    _refuse(options, "a video", "fps")
    return VideoSource(
        path,
        start_s=options.start,
        end_s=options.end,
        max_frames=options.max_frames,
        decoder=_checked_decoder(options),
    )


def _checked_decoder(options: CaptureConfig) -> str:
    from stream.capture.video import hwaccel

    hwaccel.check(options.hwaccel)
    return options.hwaccel


def _check_readable(path: Path) -> None:
    """Raise an error that is clearer than the decoder's for a file that is missing, unreadable or empty."""
    from stream.capture.stills.find import not_found

    if not path.exists():
        raise not_found(path)
    if not os.access(path, os.R_OK):
        raise SourceError("no permission to read the file", where=str(path))
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError("the file is empty", where=str(path))


_REFUSED = {
    "fps": ("--fps", "only applies to stills that become a video; {} has its own rate"),
    "start": ("--start", "does not apply: {} has no start time"),
    "end": ("--end", "does not apply: {} has no end time"),
    "hwaccel": ("--hwaccel", "does not apply: {} needs no video decoder"),
}


def _refuse(options: CaptureConfig, source: str, *names: str) -> None:
    """Raise an error for each of the options `names` that was set: `source` cannot honour it."""
    given, untouched = options.model_dump(include=set(names)), defaults().capture.model_dump()
    for name in names:
        if given[name] != untouched[name]:
            option, why = _REFUSED[name]
            raise UsageError(why.format(source), where=option, hint=f"remove {option}")


def exact_rate(fps: float | None) -> Fraction | None:
    """Exact rate for a decimal one: 29.97 and 23.976 mean 30000/1001 and 24000/1001 (SMPTE)."""
    if fps is None:
        return None
    for nominal in (24, 30, 48, 60, 120):
        ntsc = Fraction(nominal * 1000, 1001)
        if abs(fps - float(ntsc)) < 0.005:
            return ntsc
    return Fraction(str(fps))

"""Opens the source that a text names.

Invariant: an option that the source cannot honour is refused, never ignored.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture import resample
from stream.capture.base import Source
from stream.capture.limits import Limits
from stream.capture.parse import ParsedSource, SourceForm, parse_source
from stream.config import FOLDER, REACH, CaptureConfig, defaults
from stream.errors import SourceError, UsageError, reason_of
from stream.frames import SourceInfo, SourceKind
from stream.notes import note

if TYPE_CHECKING:
    from stream.capture.memory import Images


def open_source(text: str, *, options: CaptureConfig | None = None, first: int = 0) -> Source:
    """Open the source that `text` names; see `parse_source` for its forms.

    Args:
        first: number of the image to begin with in a folder, glob or list.

    Raises:
        SourceNotFoundError: the source does not exist.
        SourceError: it exists but cannot be read.
        UsageError: the text is invalid, or an option does not apply to such a source.
    """
    options = options or CaptureConfig()
    parsed = parse_source(text)
    if parsed.note:
        note(parsed.note)
    return _prepared(_open(parsed, options, first), options)


def open_images(images: "Images", *, options: CaptureConfig) -> Source:
    """Open images that are in memory, or a sequence of names, which is read like a list. An open source stays as it is.

    Raises:
        SourceError: none of them can be read.
        UsageError: an option does not apply to images.
    """
    from stream.capture.memory import Opened

    if isinstance(images, Opened):
        return images.source
    reading = for_stills(options)
    if options.sandbox and images.paths is None:
        what = "does not apply to images in memory"
        raise UsageError(what, where="sandbox", allowed=f"{_SANDBOXED}, and lists of names", hint="remove it")
    rate, most, limits = exact_rate(options.fps), reading.max_frames, Limits.of(options)
    paths = images.paths
    if paths is None:
        return _prepared(images.open(rate=rate, max_frames=most, limits=limits), options)
    from stream.capture.stills.find import common_folder
    from stream.capture.stills.source import ImagesSource

    root = common_folder(paths)
    if options.sandbox:
        from stream.capture.sandbox.process import check_system
        from stream.capture.sandbox.source import SandboxedImages

        check_system()
        return _prepared(SandboxedImages(paths, name="", root=root, rate=rate, options=reading), options)
    return _prepared(ImagesSource(paths, name="", root=root, rate=rate, max_frames=most, limits=limits), options)


def _prepared(source: Source, options: CaptureConfig) -> Source:
    """The source with its frames as the options ask for them: at a rate, cropped, mirrored."""
    rate, info = exact_rate(options.fps), source.info
    try:
        if rate is not None and info.kind is not SourceKind.STILLS:
            if info.is_live:  # a network source is known only when it is open
                refuse(options, "a live stream", "fps")
            source = resample.ResampledSource(source, rate=rate, max_frames=options.max_frames)
        if options.multiple_of is not None:
            from stream.capture.crop import CroppedSource

            most = _most_stills(options) if info.kind is SourceKind.STILLS else None
            source = CroppedSource(source, multiple=options.multiple_of, max_frames=most)
    except BaseException:
        source.close()
        raise
    if options.mirror:
        from stream.capture.mirror import MirroredSource

        source = MirroredSource(source)
    return source


def for_stills(options: CaptureConfig) -> CaptureConfig:
    """The options of the reader of stills: with `multiple_of`, `max_frames` counts the pictures that are large enough.

    Raises:
        UsageError: an option does not apply to stills.
    """
    refuse(options, "a still image", "start", "end", "hwaccel", "deinterlace", "input_options")
    if options.fps is None and options.max_seconds is not None:
        what = "does not apply: a still image has no duration without --fps"
        raise UsageError(what, where="--max-seconds", hint="remove --max-seconds, or make a video with --fps")
    return options.model_copy(update={"max_frames": None if options.multiple_of else _most_stills(options)})


def _most_stills(options: CaptureConfig) -> int | None:
    """How many stills the options ask for; `max_seconds` counts where they become a video."""
    rate, counts = exact_rate(options.fps), [options.max_frames]
    if rate is not None and options.max_seconds is not None:
        counts.append(max(1, math.ceil(Fraction(str(options.max_seconds)) * rate)))
    return min((count for count in counts if count is not None), default=None)


def announced(text: str, options: CaptureConfig) -> SourceInfo | None:
    """What is known of a live source without opening it, after refusing what cannot work.

    Its size is unknown and stated as 1×1; everything that decides what a run writes and shows is right.

    Returns:
        None if it is no live source, or has to be opened to know.

    Raises:
        UsageError: the text is invalid, or an option does not apply to such a source.
    """
    parsed = parse_source(text)
    if options.sandbox:
        _check_sandboxed(parsed, options)
    if parsed.form is SourceForm.CAMERA:
        from stream.capture.camera import camera_index

        refuse(options, "a camera", *_NOT_FOR_CAMERAS)
        index = camera_index(parsed.value)
        if sys.platform == "linux" and not os.path.exists(f"/dev/video{index}"):
            return None  # opening it says at once what is wrong
        name, kind = f"cam:{index}", SourceKind.CAMERA
    elif parsed.form is SourceForm.NETWORK:
        from stream.capture.video.network import check_input_options, is_certainly_live
        from stream.errors import redacted

        if not is_certainly_live(parsed.value, options.live):
            return None
        check_input_options(parsed.value, options.input_options)
        refuse(options, "a live stream", *_NOT_FOR_LIVE)
        _checked_decoder(options)
        name, kind = redacted(parsed.value), SourceKind.NETWORK
    else:
        return None
    return SourceInfo(
        name=name, size=(1, 1), is_live=True, time_base=Fraction(1), rate=None, frame_count=None, kind=kind
    )


def _open(parsed: ParsedSource, options: CaptureConfig, first: int) -> Source:
    if options.sandbox:
        _check_sandboxed(parsed, options)
    if parsed.form in (SourceForm.FOLDER, SourceForm.GLOB, SourceForm.LIST):
        return _open_stills(parsed.value, options, first)
    if parsed.form is SourceForm.CAMERA:
        return _open_camera(parsed, options)
    if parsed.form is SourceForm.PATTERN:
        return _open_pattern(parsed.value, options)
    if parsed.form is SourceForm.NETWORK:
        return _open_network(parsed.value, options)
    if parsed.form is SourceForm.REMOTE:
        return _open_remote(parsed.value, options)
    if parsed.form is SourceForm.PIPE:
        return _open_pipe(parsed.value, options)
    return open_file(parsed, options)


_SANDBOXED = "files, folders, globs, .txt lists and pipes"


def _check_sandboxed(parsed: ParsedSource, options: CaptureConfig) -> None:
    """Refuse `--sandbox` for what is not decoded in a sandbox."""
    from stream.capture.sandbox.process import check_system

    check_system()
    if parsed.form in (SourceForm.CAMERA, SourceForm.PATTERN, SourceForm.NETWORK, SourceForm.REMOTE):
        hint = "remove --sandbox"
        if parsed.form in (SourceForm.NETWORK, SourceForm.REMOTE):
            hint = f"save the {'stream' if parsed.form is SourceForm.NETWORK else 'source'} to a file first"
        raise UsageError(f"does not apply to a {parsed.form} source", where="--sandbox", allowed=_SANDBOXED, hint=hint)
    if options.hwaccel != defaults().capture.hwaccel:
        what = "cannot be combined with --sandbox: the driver needs the device"
        raise UsageError(what, where="--hwaccel", hint="remove one of the two")


def _open_camera(parsed: ParsedSource, options: CaptureConfig) -> Source:
    from stream.capture.camera import CameraSource

    refuse(options, "a camera", *_NOT_FOR_CAMERAS)

    def opened(_within_s: float = 0.0) -> Source:
        return CameraSource(
            int(parsed.value) if parsed.value.isdecimal() else parsed.value,
            size_hw=options.camera_size and options.camera_size[::-1],
            rate=exact_rate(options.camera_fps),
            fourcc=options.camera_fourcc,
            read_timeout_s=options.read_timeout_s,
            end_s=options.until,
            max_frames=options.max_frames,
        )

    limited = options.until is not None or options.max_frames is not None
    if not options.reconnect_for_s or limited:
        return opened()
    from stream.capture.reconnect import ReconnectingSource

    return ReconnectingSource(opened(), opened, give_up_after_s=options.reconnect_for_s, ends=True)


def _open_pattern(name: str, options: CaptureConfig) -> Source:
    from stream.capture import clock
    from stream.capture.pattern import RATE, PatternSource

    refuse(options, "a pattern", "fps", "start", "hwaccel", "deinterlace", "input_options")
    rate = exact_rate(options.camera_fps) or RATE
    limits = [options.max_frames] if options.max_frames is not None else []
    if options.until is not None:
        limits.append(max(1, math.ceil(options.until * rate)))
    height_width = (480, 640) if options.camera_size is None else options.camera_size[::-1]
    background = "testsrc2" if name == clock.NAME else name
    source = PatternSource(background, size_hw=height_width, rate=rate, max_frames=min(limits, default=None))
    return clock.ClockSource(source) if name == clock.NAME else source


def _open_network(url: str, options: CaptureConfig) -> Source:
    from stream.capture.video.network import Liveness, check_input_options, is_certainly_live, open_network

    if is_certainly_live(url, options.live):
        refuse(options, "a live stream", *_NOT_FOR_LIVE)
    reading = resample.of_reader(options)
    check_input_options(url, options.input_options)
    decoder, limits = _checked_decoder(options), Limits.of(options)
    source = _open_interruptibly(
        partial(
            _video_or_image,
            partial(
                open_network,
                url,
                live=Liveness(options.live),
                open_timeout_s=options.open_timeout_s,
                read_timeout_s=options.read_timeout_s,
                start_s=reading.start,
                end_s=reading.until,
                max_frames=reading.max_frames,
                decoder=decoder,
                deinterlace=options.deinterlace,
                input_options=options.input_options,
                limits=limits,
            ),
            url,
            options,
        )
    )
    if not source.info.is_live:
        return source
    try:
        refuse(options, "a live stream", *_NOT_FOR_LIVE)
    except UsageError:
        source.close()
        raise
    return _with_reconnection(source, url, options, limits) if options.reconnect_for_s else source


def _open_remote(url: str, options: CaptureConfig) -> Source:
    from stream.capture.remote import open_remote

    return _open_interruptibly(
        partial(
            open_remote,
            url,
            options,
            decoder=_checked_decoder(options),
            rate=exact_rate(options.fps),
            check_video=partial(refuse, options, "a video", "input_options"),
            for_stills=for_stills,
            open_file=lambda path: open_file(ParsedSource(form=SourceForm.PICTURE, value=str(path)), options),
        )
    )


def _video_or_image(open_video: Callable[[], Source], url: str, options: CaptureConfig) -> Source:
    """Open a URL as a video; what FFmpeg takes for an image, or does not know, is downloaded and opened like a file."""
    from stream.capture.video.fetch import NotAVideoError, open_fetched
    from stream.capture.video.network import as_ffmpeg_takes, may_be_private
    from stream.capture.video.reach import Reach

    def open_downloaded(path: Path) -> Source:
        downloaded = options.model_copy(update={"input_options": None})
        return open_file(ParsedSource(form=SourceForm.PICTURE, value=str(path)), downloaded)

    try:
        return open_video()
    except NotAVideoError:
        if not url.lower().startswith(("http://", "https://")):
            raise
        reach = Reach(
            url,
            as_ffmpeg_takes(options.input_options),
            private=may_be_private(options.input_options),
            open_timeout_s=options.open_timeout_s,
            read_timeout_s=options.read_timeout_s,
        )
        source = open_fetched(url, open_downloaded, reach)
        if source is None:
            raise
        return source


def _open_pipe(text: str, options: CaptureConfig) -> Source:
    """Open a pipe: as a file, of which every frame is processed, unless --live says otherwise."""
    from stream.capture import pipe

    readers: list[pipe.PipeReader] = []

    def open_video(reader: pipe.PipeReader) -> Source:
        refuse(options, "a video", "input_options")
        if options.live == "live":
            refuse(options, "a live stream", *_NOT_FOR_LIVE)
        if options.sandbox:
            return pipe.open_sandboxed_video(reader, options)
        return pipe.open_piped_video(reader, options, decoder=_checked_decoder(options))

    def open_it() -> Source:
        reader = pipe.open_reader(text)
        readers.append(reader)
        return pipe.open_pipe(
            reader,
            open_file=lambda path: open_file(ParsedSource(form=SourceForm.VIDEO, value=str(path)), options),
            open_video=lambda: open_video(reader),
        )

    waiting = f"{pipe.name_of(text)}: waiting for a program to write to it"
    try:
        return _open_interruptibly(open_it, waiting=waiting)
    except KeyboardInterrupt:
        for reader in readers:
            reader.stop()
        raise


_PATIENCE_S = 1.0
"""A wait that is longer is said."""


def _open_interruptibly(open_it: Callable[[], Source], *, waiting: str = "") -> Source:
    """Call `open_it` in a thread, so that Ctrl-C ends the wait at once; the thread ends at its own time limit.

    Args:
        waiting: noted if it takes longer than `_PATIENCE_S`; "" for nothing.
    """
    opened: Future[Source] = Future()

    def run() -> None:
        try:
            opened.set_result(open_it())
        except BaseException as error:  # noqa: BLE001  handed to the caller, who re-raises it
            opened.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), name="depthstream-open", daemon=True).start()
    patience_ends = time.monotonic() + _PATIENCE_S
    try:
        while True:
            done, _ = wait([opened], 0.1)  # an endless wait does not react to Ctrl-C on every system
            if done:
                return opened.result()
            if waiting and time.monotonic() > patience_ends:
                note(waiting)
                waiting = ""
    except KeyboardInterrupt:
        opened.add_done_callback(_close_late)
        raise


def _close_late(opened: "Future[Source]") -> None:
    if opened.exception() is None:
        opened.result().close()


def _with_reconnection(source: Source, url: str, options: CaptureConfig, limits: Limits) -> Source:
    """Wrap a live stream so that it is opened again when it breaks, with its first limits: the run takes memory too."""
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
            deinterlace=options.deinterlace,
            input_options=options.input_options,
            limits=limits,
        )

    return ReconnectingSource(
        source,
        reopen,
        give_up_after_s=options.reconnect_for_s,
        ends=not end_may_be_restart(url),
        max_frames=options.max_frames,
    )


def _open_stills(text: str, options: CaptureConfig, first: int = 0) -> Source:
    from stream.capture.stills.find import find_pictures
    from stream.capture.stills.source import ImagesSource

    options = for_stills(options)
    found = find_pictures(text, recursive=options.recursive)
    if options.sandbox:
        from stream.capture.sandbox.source import SandboxedImages

        return SandboxedImages(
            found.paths,
            name=text,
            root=found.root,
            rate=exact_rate(options.fps),
            options=options,
            ignored=found.ignored,
            ignored_because=found.ignored_because,
            unreadable=found.unreadable,
            notes=found.notes,
        )
    return ImagesSource(
        found.paths,
        name=text,
        root=found.root,
        rate=exact_rate(options.fps),
        max_frames=options.max_frames,
        limits=Limits.of(options),
        ignored=found.ignored,
        ignored_because=found.ignored_because,
        unreadable=found.unreadable,
        notes=found.notes,
        first=first,
    )


def open_file(parsed: ParsedSource, options: CaptureConfig) -> Source:
    """Open one file; its content decides if the suffix is not that of an image, and if an image is an animation."""
    from stream.capture.stills import animation, cost
    from stream.capture.stills.formats import is_picture
    from stream.capture.stills.picture import open_picture
    from stream.capture.video.mjpeg import is_jpeg_stream

    path = Path(parsed.value)
    _check_readable(path)
    if options.sandbox:
        from stream.capture.sandbox.source import SandboxedSource

        request = {"file": str(path), "form": parsed.form.value}
        return SandboxedSource(request, name=str(path), options=options, path=path)
    if parsed.form is SourceForm.VIDEO and not is_picture(path):
        return _open_video(path, options)
    if is_jpeg_stream(path, is_named_photo=parsed.form is SourceForm.PICTURE):
        return _open_video(path, options, demuxer="mjpeg")
    limits = Limits.of(options)
    with open_picture(path, limits=limits) as picture:
        is_gif = picture.format == "GIF"
        is_animation = (is_gif or picture.format in animation.FORMATS) and picture.frame_count > 1
        if is_animation:
            height, width = picture.size_hw
            needed = picture.decoding_bytes + height * width * cost.ANIMATED
            limits.check_picture(picture.size_hw, needed, str(path))
    if not is_animation:
        return _open_stills(parsed.value, options)
    if is_gif:  # named, because FFmpeg would take a name like a%d.gif for a numbered series
        return _open_video(path, options, demuxer="gif")
    refuse(options, "an animation", "hwaccel", "deinterlace", "input_options")
    return animation.AnimatedSource(
        path,
        start_s=options.start,
        end_s=options.until,
        max_frames=resample.of_reader(options).max_frames,
        limits=limits,
    )


def _open_video(path: Path, options: CaptureConfig, *, demuxer: str | None = None) -> Source:
    from stream.capture.video.file import VideoSource

    reads_folder = options.input_options == {REACH: FOLDER}
    refuse(options, "a video", *([] if reads_folder else ["input_options"]))
    return VideoSource(
        path,
        reads_folder=reads_folder,
        demuxer=demuxer,
        start_s=options.start,
        end_s=options.until,
        max_frames=resample.of_reader(options).max_frames,
        decoder=_checked_decoder(options),
        deinterlace=options.deinterlace,
        limits=Limits.of(options),
    )


def _checked_decoder(options: CaptureConfig) -> str:
    from stream.capture.video import hwaccel

    hwaccel.check(options.hwaccel)
    return options.hwaccel


def _check_readable(path: Path) -> None:
    """Raise an error that is clearer than the decoder's for a file that is missing, unreadable or empty."""
    from stream.capture.stills.find import not_found

    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        raise not_found(path) from None
    except OSError as error:
        raise SourceError(f"cannot be read: {reason_of(error)}", where=str(path)) from error
    if not os.access(path, os.R_OK):
        raise SourceError("no permission to read the file", where=str(path))
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError("the file is empty", where=str(path))


_NOT_FOR_CAMERAS = ("fps", "start", "hwaccel", "deinterlace", "input_options")
_NOT_FOR_LIVE = ("fps", "start", "end", "max_seconds")
_REFUSED = {
    "fps": ("--fps", "only applies to files; {} has its own rate"),
    "start": ("--start", "does not apply: {} has no start time"),
    "end": ("--end", "does not apply: {} has no end time"),
    "max_seconds": ("--max-seconds", "does not apply: {} has no duration"),
    "hwaccel": ("--hwaccel", "does not apply: {} needs no video decoder"),
    "input_options": ("--input-option", "does not apply: {} is no network source"),
    "deinterlace": ("--deinterlace", "does not apply: {} needs no video decoder"),
}


def refuse(options: CaptureConfig, source: str, *names: str) -> None:
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

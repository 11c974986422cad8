"""Puts the finished segments of a job together: their videos are copied, their files are in place already.

Invariant: an output is there under its final name only if every segment is in it, whole and made alike.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path, PurePath

from stream.capture.base import Source
from stream.config import Config
from stream.depthdata.storage import read_description, sidecar_path
from stream.errors import OutputError, SinkError, reason_of
from stream.files import Need, as_sink_error, by_disk, check_free_space, real, write_file
from stream.frames import SourceInfo
from stream.jobs.plan import OutputKind, OutputPlan, plan_outputs, suffixes_by_folder
from stream.jobs.segments.rotation import FILES
from stream.jobs.segments.rows import LAST_DURATION, Piece, Plan, SegmentRecord
from stream.jobs.segments.store import LocalStore, Store, piece_of
from stream.jobs.source import open_config_source
from stream.jobs.supervise import StopSign
from stream.notes import note
from stream.sinks.audio import AudioPolicy
from stream.sinks.depthfiles import DESCRIPTION
from stream.sinks.joined import JoinedDepthVideo, JoinedVideo
from stream.sinks.naming import FrameNames
from stream.sinks.pieces import DEPTH, VIDEO
from stream.sinks.record import FolderRecord, PartOfFolder
from stream.sinks.video import VIDEO_SUFFIXES

_ALIKE = {
    "model": "model",
    "weights_sha256": "weights",
    "precision": "precision",
    "backend": "backend",
    "version": "version",
}
"""What must be equal in all records of a job, and what messages call it."""
_VIDEOS = (".nut", *VIDEO_SUFFIXES)
START_AGAIN = "start again with --overwrite, without --resume"
_SHOWN = 8
"""Segments that a message names."""


class DamagedError(SinkError):
    """Files of finished segments are not what they were.

    Attributes:
        numbers: of the segments.
    """

    def __init__(self, numbers: Sequence[int], store: Store) -> None:
        self.numbers = tuple(numbers)
        hint = "do it again with --resume" if len(numbers) == 1 else "do them again with --resume"
        super().__init__(f"{named(numbers)} damaged since it was made", where=store.where, hint=hint)


@dataclass(kw_only=True)
class Joined:
    """What was put together.

    Attributes:
        outputs: final paths, or those of partial files.
        counters, warnings: those of the sinks, see `Report`.
    """

    outputs: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A segment, and the local folder with its files."""

    folder: Path
    record: SegmentRecord

    def piece(self, stem: str) -> list[Path]:
        """Its piece of a video, if it has one: an empty segment has none."""
        names = [
            piece.name
            for piece in self.record.pieces
            if piece.name.partition(".")[0] == stem and PurePath(piece.name).suffix in _VIDEOS
        ]
        return [self.folder / name for name in names]

    def has(self, name: str) -> bool:
        """Whether there is a piece with this name."""
        return any(piece.name == name for piece in self.record.pieces)

    @property
    def files(self) -> dict[str, tuple[int, str]]:
        """Size and SHA-256 of its files that are in the output folders, by name. Raises `OSError` or `ValueError`."""
        return PartOfFolder.read((self.folder / FILES).read_text(encoding="utf-8")) if self.has(FILES) else {}


def check_reused(
    records: Sequence[SegmentRecord],
    store: Store,
    outputs: OutputPlan,
    *,
    is_joined: bool,
    stop: StopSign | None = None,
) -> bool:
    """Read the files of segments that an earlier run has made, so that none is used that is damaged.

    The disk and SHA-256 set the pace: 570 to 600 MB/s on one core of an AMD EPYC.

    Args:
        is_joined: `join` will read the pieces; only the files in the output folders are read here.
        stop: ends it between two segments.

    Returns:
        False if it was ended.

    Raises:
        DamagedError: some are not what they were.
    """
    base, damaged = _base(outputs), list[int]()
    for record in records:
        if stop is not None and stop.is_set():
            return False
        part = _Part(folder=store.folder(record.number), record=record)
        if not _is_whole(part, base, reads_pieces=not is_joined):
            damaged.append(record.number)
    if damaged:
        raise DamagedError(damaged, store)
    return True


def join(config: Config, plan: Plan, store: Store, *, reads_files: bool = True) -> Joined:
    """Make the outputs of a job whose segments are all done; the store stays.

    Args:
        config: of the job; its source is read again for the sound.
        reads_files: check what the files in the output folders contain, and not only their size.

    Raises:
        OutputError: segments are missing or were not made alike, or an output exists.
        DamagedError: files of segments are not what they were.
        StreamError: the source cannot be read, or an output not be written.
    """
    parts = [_Part(folder=store.folder(record.number), record=record) for record in checked(plan, store)]
    with closing(open_config_source(config)) as source:
        outputs = plan_outputs(config, source.info)
        base = _base(outputs)
        if damaged := [part.record.number for part in parts if not _is_whole(part, base, reads_files=reads_files)]:
            raise DamagedError(damaged, store)
        _check_space(outputs, parts)
        results = store if isinstance(store, LocalStore) else None
        _settle_files(config, outputs, parts)
        return _written(config, outputs, source, parts, Fraction(plan.rows[0].tick), results=results)


def join_partial(config: Config, plan: Plan, store: Store) -> Joined:
    """Make `NAME.partial.EXT` of what there is of an interrupted job: the segments from the first on without a hole,
    and what was kept of the next one. Nothing if there is none.

    Raises:
        StreamError: see `join`.
    """
    parts = []
    for row in plan.rows:
        if (record := store.record(row.number)) is not None:
            parts.append(_Part(folder=store.folder(row.number), record=record))
            continue
        if (kept := store.kept(row.number)) is not None:
            parts.append(_Part(folder=kept[0], record=kept[1]))
        break
    with closing(open_config_source(config)) as source:
        return _written(
            config, plan_outputs(config, source.info), source, parts, Fraction(plan.rows[0].tick), is_partial=True
        )


def checked(plan: Plan, store: Store) -> list[SegmentRecord]:
    """The records of all segments.

    Raises:
        OutputError: some are missing, or they were not made alike.
    """
    found = {row.number: store.record(row.number) for row in plan.rows}
    if holes := [number for number, record in found.items() if record is None]:
        count = len(plan.rows) - len(holes)
        what = f"{named(holes)} missing: {count} of {len(plan.rows)} {'is' if count == 1 else 'are'} done"
        raise OutputError(what, where=store.where, hint="do the rest with --resume, or on the machines that make them")
    records = [record for record in found.values() if record is not None]
    first = records[0]
    for record in records:
        if record.plan != plan.digest:
            what = f"segment {record.number} belongs to another plan: its source, options or cuts are different"
            raise OutputError(what, where=store.where, hint=START_AGAIN)
        for name, shown in _ALIKE.items():
            mine, other = getattr(record, name), getattr(first, name)
            if mine != other:
                what = f"segment {record.number} was made with {shown} {mine}, segment {first.number} with {other}"
                raise OutputError(what, where=store.where, hint=START_AGAIN)
    return records


def named(numbers: Sequence[int]) -> str:
    """`segment 3 is`, `segments 3, 7 and 8 are`; of many, the first ones."""
    if len(numbers) == 1:
        return f"segment {numbers[0]} is"
    *texts, last = [str(number) for number in numbers[:_SHOWN]]
    if len(numbers) > _SHOWN:
        return f"segments {', '.join([*texts, last])} and {len(numbers) - _SHOWN} more are"
    return f"segments {', '.join(texts)} and {last} are"


def _is_whole(part: _Part, base: Path, *, reads_pieces: bool = True, reads_files: bool = True) -> bool:
    """Whether the files of a segment are what they were; those that are not read have their size at least."""
    pieces = [(part.folder / piece.name, piece) for piece in part.record.pieces]
    try:
        files = [(base / name, Piece(name=name, size=size, sha256=sum_)) for name, (size, sum_) in part.files.items()]
        if any(path.stat().st_size != piece.size for path, piece in (*pieces, *files)):
            return False
        read = [*(pieces if reads_pieces else ()), *(files if reads_files else ())]
        return all(piece_of(path, piece.name) == piece for path, piece in read)
    except (OSError, ValueError):
        return False


def _base(outputs: OutputPlan) -> Path:
    """What the names of files in place are relative to, see `Rotation`."""
    return (outputs.path or outputs.depth_path or Path()).parent


def _settle_files(config: Config, outputs: OutputPlan, parts: Sequence[_Part]) -> None:
    """Do for the files that are in place what their sinks do at the end of a run: list them, and describe them."""
    info, base, overwrite = outputs.info, _base(outputs), config.output.overwrite
    files = [base / name for part in parts for name in part.files]
    for folder, suffixes in suffixes_by_folder(config, outputs).items() if files else ():
        planned, inputs = FrameNames(info.names, suffixes).planned, {real(path) for path in info.files}
        for suffix in suffixes:
            record = FolderRecord.of(folder, suffix, info)
            for path in files:
                if record.is_ours(path.name) and folder in path.parents:
                    record.add(path)
            keep = {stem + suffix for stem in planned}
            for text in record.settle(replaces=overwrite, tells=overwrite, keep=keep, inputs=inputs):
                note(text)
    found = [read_description(part.folder / DESCRIPTION) for part in parts if part.has(DESCRIPTION)]
    if found and outputs.depth_path is not None:
        count = sum(one.frame_count or 0 for one in found)
        about = replace(
            found[0],
            frame_count=count,
            refined=any(one.refined for one in found),
            steadied=any(one.steadied for one in found),
            carried=any(one.carried for one in found),
        )
        path = outputs.depth_path / DESCRIPTION
        with as_sink_error(path):
            write_file(path, (about.as_json(indent=2) + "\n").encode())


def _check_space(outputs: OutputPlan, parts: Sequence[_Part]) -> None:
    needs = [
        Need(folder=path.parent, size=sum(piece.stat().st_size for piece in _pieces(parts, stem)), what=path.name)
        for path, stem in _videos(outputs)
    ]
    for need in by_disk(needs):
        check_free_space(need.folder, need.size, need.what)


def _videos(outputs: OutputPlan) -> Iterator[tuple[Path, str]]:
    """The videos that are made of pieces, and the stem of these."""
    if outputs.kind is OutputKind.VIDEO and outputs.path is not None:
        yield outputs.path, VIDEO
    if outputs.depth_video is not None:
        yield outputs.depth_video, DEPTH


def _has_sidecar(path: Path) -> bool:
    sidecar = sidecar_path(path)
    return sidecar is None or sidecar.is_file()


def _pieces(parts: Sequence[_Part], stem: str) -> list[Path]:
    return [path for part in parts for path in part.piece(stem)]


def _written(
    config: Config,
    outputs: OutputPlan,
    source: Source,
    parts: Sequence[_Part],
    tick: Fraction,
    *,
    results: LocalStore | None = None,
    is_partial: bool = False,
) -> Joined:
    done = Joined()
    with_frames = [part.record for part in parts if part.record.frames]
    last_duration = _last_duration(source, with_frames, tick) if with_frames else None
    for path, stem in _videos(outputs):
        is_there = results is not None and results.has_result(path)
        if is_there and _has_sidecar(path):  # renamed by a run that was killed before it could say so
            done.outputs.append(str(path))
            continue
        pieces = _pieces(parts, stem)
        if not pieces:
            continue
        sink = _sink(config, path, stem, pieces, overwrite=config.output.overwrite or is_there)
        sink.before_rename = None if results is None else results.add_result
        _write(sink, source, pieces, last_duration, is_partial=is_partial)
        for text in sink.notes:
            note(text)
        done.outputs += sink.outputs
        done.counters |= sink.counters
        done.warnings += sink.warnings
    folders = (outputs.path if outputs.kind is OutputKind.FOLDER else None, outputs.depth_path)
    done.outputs += [str(folder) for folder in dict.fromkeys(folders) if folder is not None and folder.is_dir()]
    return done


def _last_duration(source: Source, records: Sequence[SegmentRecord], tick: Fraction) -> int | None:
    """How long the last frame is shown, in the source's ticks: which one is the last is known here for certain.

    Who has begun to read in the middle of a file had to believe the decoder, which counts to the next decoded frame.
    """
    last, unit = records[-1], source.info.time_base
    end = source.end_after(sum(record.frames for record in records))
    if end is not None and last.last_pts is not None and (left := end - round(last.last_pts * tick / unit)) > 0:
        return left
    ticks = last.counts.get(LAST_DURATION)
    return None if ticks is None else round(ticks * tick / unit)


def _sink(config: Config, path: Path, stem: str, pieces: Sequence[Path], *, overwrite: bool) -> JoinedVideo:
    output = config.output
    if stem == DEPTH:
        return JoinedDepthVideo(path, pieces, overwrite=overwrite)
    return JoinedVideo(
        path,
        codec=output.codec,
        crf=output.crf,
        preset=output.preset,
        audio=AudioPolicy.KEEP if output.audio else AudioPolicy.NONE,
        audio_to_source_end=config.capture.max_frames is None,
        overwrite=overwrite,
    )


def _write(
    sink: JoinedVideo, source: Source, pieces: Sequence[Path], last_duration: int | None, *, is_partial: bool
) -> None:
    def read_sound(until_s: Fraction | None) -> None:
        source.read_sound(None if until_s is None else float(until_s))

    info: SourceInfo = source.info
    try:
        sink.begin(info, pieces, read_sound=read_sound, last_duration=last_duration)
        sink.copy()
        if is_partial:
            sink.keep_partial("interrupted")
        else:
            sink.finish()
    except OSError as error:
        sink.abort(error)
        raise SinkError(f"cannot be written: {reason_of(error)}", where=str(sink.path)) from error
    except BaseException as error:
        sink.abort(error)
        raise

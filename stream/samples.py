"""A few pictures from all over a source, to calibrate and to measure with.

Invariant: the source is opened for it and closed again, and at most as many frames are decoded as its seeks need.
"""

from contextlib import closing

from stream.config import Config
from stream.errors import SourceError
from stream.frames import Frame, SourceInfo, SourceKind
from stream.jobs import open_config_source


def sample(config: Config, count: int) -> list[Frame]:
    """Up to `count` frames: of a video or a folder evenly spread, of a live source the first ones.

    Raises:
        StreamError: the source cannot be opened or read.
    """
    with closing(open_config_source(config)) as source:
        info = source.info
        parts = _parts(config, info, count)
        if not parts:
            frames = []
            for frame in source:
                frames.append(frame)
                if len(frames) == count:
                    break
            return frames
    found = []
    for part in parts:
        try:
            with closing(open_config_source(part)) as source:
                found += [frame for frame, _ in zip(source, range(1), strict=False)]
        except SourceError:
            continue  # the run itself will name what cannot be read
    return found


def _parts(config: Config, info: SourceInfo, count: int) -> list[Config]:
    """A config for each picture; none where the source is read from its start."""
    capture = config.capture
    if info.kind is SourceKind.STILLS and len(info.files) > count:
        chosen = [info.files[len(info.files) * number // count] for number in range(count)]
        return [config.model_copy(update={"source": str(path)}) for path in chosen]
    if info.kind is SourceKind.VIDEO and info.rate and info.frame_count and info.frame_count > count:
        start_s = capture.start or 0.0
        length_s = float(info.frame_count / info.rate)
        starts = [start_s + length_s * (number + 0.5) / count for number in range(count)]
        updates = [{"start": start, "end": None, "max_frames": 1} for start in starts]
        return [config.model_copy(update={"capture": capture.model_copy(update=update)}) for update in updates]
    return []

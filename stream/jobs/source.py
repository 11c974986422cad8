"""From a config to an open source, and to a few sample frames from all over it.

Invariant: `sample` closes whatever it opens, and decodes no more frames than its seeks need.
"""

from contextlib import closing

from stream.capture.base import Source
from stream.config import Config
from stream.errors import ConfigError, SourceError
from stream.frames import Frame, SourceInfo, SourceKind


def open_config_source(config: Config) -> Source:
    """Open the source that `config` names.

    Raises:
        StreamError: the source is missing, cannot be opened, or does not take one of the options.
    """
    from stream.capture.open import open_source

    if config.source is None:
        raise ConfigError("no SOURCE given", hint="name a camera, file, folder or URL")
    return open_source(config.source, options=config.capture)


def sample(config: Config, count: int) -> list[Frame]:
    """Up to `count` frames: spread evenly over a video or folder, the first ones of a live source.

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
            continue  # the run itself names what cannot be read
    return found


def _parts(config: Config, info: SourceInfo, count: int) -> list[Config]:
    """One config for each sample; none if the source has to be read from its start."""
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

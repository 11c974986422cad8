"""What a batch would take, before it is begun.

Invariant: a number that was not measured on this machine is not given; what it stands for is said.
"""

from dataclasses import dataclass

from stream.batch.schedule import Schedule
from stream.config import Config


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is still to be done.

    Attributes:
        videos, pictures: sources.
        segments: of the videos that are longer than a minute.
        frames: of the videos whose number of frames is known, and the pictures; `unknown` are the other videos.
        failed: sources that cannot be done.
        needed_bytes: of the results of the videos, see `sinks.naming.estimated_bytes`.
        seconds: None if the speed is not known.
        speed: where it is from, or how to get it.
    """

    videos: int
    pictures: int
    segments: int
    frames: int
    unknown: int
    done: int
    elsewhere: int
    failed: int
    needed_bytes: int
    seconds: float | None
    speed: str


def estimate(schedule: Schedule, config: Config, *, slots: int, speed: tuple[float, str] | None) -> Estimate:
    """The estimate for what a schedule has planned.

    Args:
        slots: workers.
        speed: frames per second of one run on this machine, and where that is from; None if unknown.
    """
    waiting = [source for source in schedule.sources.values() if source.state == "planned"]
    videos = [source for source in waiting if not source.item.is_picture]
    frames = sum(source.frames or 0 for source in videos) + len(waiting) - len(videos)
    if speed is None:
        name = config.model.name or "starter"
        fps, where = None, f"unknown; `depthstream bench -m {name}` measures it"
    else:
        fps, where = speed
        if slots > 1:
            where += f", as if {slots} processes shared the machine without gain"
    states = [source.state for source in schedule.sources.values()]
    return Estimate(
        videos=len(videos),
        pictures=len(waiting) - len(videos),
        segments=sum(source.rows for source in videos),
        frames=frames,
        unknown=sum(source.frames is None for source in videos),
        done=states.count("done"),
        elsewhere=states.count("elsewhere"),
        failed=states.count("failed"),
        needed_bytes=sum(source.needs for source in waiting),
        seconds=None if fps is None else frames / fps,
        speed=where,
    )

"""The timeline of a source: parts whose clocks differ are joined, pauses stay, and pictures and sound move together."""

from itertools import pairwise

import pytest

from stream.capture.video.timeline import Clock, Timeline, clock_of

MS = 0.001
PICTURE, SOUND = 0, 1


def moved(
    clock: Clock, packets: list[tuple[int, int]], *, step: int = 40, arrivals: list[float] | None = None
) -> tuple[list[int], Timeline]:
    """The new times of (stream, time in ms), each `step` long."""
    timeline = Timeline(clock)
    times = []
    for number, (stream, time) in enumerate(packets):
        arrived_s = None if arrivals is None else arrivals[number]
        times.append(time + timeline.offset(stream, time, time, step, MS, arrived_s))
    return times, timeline


def pictures(*times: int) -> list[tuple[int, int]]:
    return [(PICTURE, time) for time in times]


@pytest.mark.parametrize(
    ("name", "flags", "is_live", "clock"),
    [
        ("mov,mp4,m4a,3gp,3g2,mj2", 0, False, Clock.CONTAINER),
        ("matroska,webm", 0, True, Clock.CONTAINER),
        ("mpegts", 0x200, False, Clock.RESTARTS),
        ("mpeg", 0x200, False, Clock.RESTARTS),
        ("hls", 0x200, True, Clock.RESTARTS),
        ("flv", 0, True, Clock.RESTARTS),
        ("flv", 0, False, Clock.CONTAINER),
        ("live_flv", 0x200, True, Clock.RESTARTS),
        ("rtsp", 0, True, Clock.RESTARTS),
        ("mpjpeg", 0x80, True, Clock.ARRIVAL),
        ("h264", 0x180, True, Clock.ARRIVAL),
        ("h264", 0x180, False, Clock.NOMINAL),
        ("jpeg_pipe", 0x100, True, Clock.ARRIVAL),
        ("jpeg_pipe", 0x100, False, Clock.NOMINAL),
    ],
)
def test_the_format_decides_which_clock_is_used(name: str, flags: int, is_live: bool, clock: Clock) -> None:
    assert clock_of(name, flags, is_live=is_live) is clock


@pytest.mark.parametrize("clock", [Clock.CONTAINER, Clock.RESTARTS])
def test_a_clock_that_starts_again_goes_on(clock: Clock) -> None:
    times, timeline = moved(clock, pictures(1400, 1440, 5000, 1400, 1440, 9000, 0, 40))
    assert times == [1400, 1440, 5000, 5040, 5080, 12640, 12680, 12720]
    assert timeline.jumps == 2
    assert str(timeline) == "the timestamps start again or jump 2 times; the parts were joined"


def test_a_jump_forwards_is_closed_up_where_clocks_may_differ_and_a_pause_elsewhere() -> None:
    jump = pictures(0, 40, 3_600_000, 3_600_040)
    assert moved(Clock.RESTARTS, jump)[0] == [0, 40, 80, 120]
    assert moved(Clock.CONTAINER, jump)[0] == [0, 40, 3_600_000, 3_600_040]
    pause = pictures(0, 40, 9_000, 9_040)
    for clock in (Clock.RESTARTS, Clock.CONTAINER):
        times, timeline = moved(clock, pause)
        assert times == [0, 40, 9_000, 9_040]
        assert timeline.jumps == 0


def test_pictures_that_stand_still_while_the_sound_goes_on_are_a_pause() -> None:
    sound = [(SOUND, time) for time in range(40, 30_000, 40)]
    times, timeline = moved(Clock.RESTARTS, [(PICTURE, 0), *sound, (PICTURE, 30_000)])
    assert times[-1] == 30_000
    assert timeline.jumps == 0


def test_pictures_and_sound_get_one_offset_whichever_comes_first() -> None:
    first = [(PICTURE, 0), (SOUND, 10), (PICTURE, 40), (SOUND, 50), (PICTURE, 80)]
    for second in (
        [(PICTURE, 0), (SOUND, 5090), (SOUND, 10), (PICTURE, 40), (SOUND, 50)],  # the last sound comes late
        [(PICTURE, 0), (SOUND, 10), (PICTURE, 40), (SOUND, 50)],
    ):
        packets = [(stream, 5000 + time) for stream, time in first] + second
        times, timeline = moved(Clock.RESTARTS, packets)
        assert timeline.jumps == 1
        at = dict(zip(packets, times, strict=True))
        assert at[PICTURE, 0] == 5120
        assert at[SOUND, 10] - at[PICTURE, 0] == 10
        assert at[SOUND, 50] - at[PICTURE, 40] == 10
        assert at.get((SOUND, 5090), 5090) == 5090


def test_display_order_is_no_jump() -> None:
    """With B-frames the pts go back within a group, the dts do not."""
    timeline = Timeline(Clock.RESTARTS)
    for dts, pts in ((0, 2000), (1000, 6000), (2000, 4000), (3000, 3000), (4000, 5000)):
        assert timeline.offset(PICTURE, dts, pts, 1000, MS, None) == 0
    assert timeline.jumps == 0
    assert timeline.offset(PICTURE, 0, 2000, 1000, MS, None) == 5000  # the last picture, at 6000, ends at 7000


def test_packets_without_times_follow_their_stream() -> None:
    timeline = Timeline(Clock.RESTARTS)
    assert timeline.offset(PICTURE, None, None, 40, MS, None) == 0
    assert timeline.offset(PICTURE, 5000, 5000, 40, MS, None) == 0
    assert timeline.offset(PICTURE, 0, 0, 40, MS, None) == 5040
    assert timeline.offset(PICTURE, None, None, 40, MS, None) == 5040


def test_a_counter_of_33_bits_wraps_around_without_a_join() -> None:
    tick, top = 1 / 90_000, 1 << 33
    timeline = Timeline(Clock.RESTARTS)
    times = [top - 7200, top - 3600, 0, 3600]
    assert [t + timeline.offset(PICTURE, t, t, 3600, tick, None) for t in times] == [
        top - 7200,
        top - 3600,
        top,
        top + 3600,
    ]
    assert timeline.jumps == 0


def test_a_live_sender_that_was_silent_leaves_its_pause() -> None:
    restart, _ = moved(Clock.RESTARTS, pictures(5000, 5040, 0, 40), arrivals=[0.0, 0.04, 3.04, 3.08])
    assert restart == [5000, 5040, 8080, 8120]
    at_once, _ = moved(Clock.RESTARTS, pictures(5000, 5040, 0, 40), arrivals=[0.0, 0.04, 0.05, 0.09])
    assert at_once == [5000, 5040, 5080, 5120]
    stall, timeline = moved(Clock.RESTARTS, pictures(0, 40, 20_040, 20_080), arrivals=[0.0, 0.04, 20.0, 20.04])
    assert stall == [0, 40, 20_040, 20_080]
    assert timeline.jumps == 0


@pytest.mark.parametrize("wild", [{100: 5_000_000}, {100: 5_000_000, 101: 90_000_000}, {100: -5_000_000}])
@pytest.mark.parametrize("damaged", [PICTURE, SOUND])
@pytest.mark.parametrize("ahead", [PICTURE, SOUND])
def test_damaged_timestamps_of_one_stream_leave_pictures_and_sound_in_sync(
    ahead: int, damaged: int, wild: dict[int, int]
) -> None:
    packets = [
        (stream, 40 * number + 800 * (stream == ahead) + wild.get(number, 0) * (stream == damaged))
        for number in range(300)
        for stream in (PICTURE, SOUND)
    ]
    times, timeline = moved(Clock.RESTARTS, packets)
    after = 2 * (max(wild) + 1)
    assert times[after:] == [time for _, time in packets[after:]]
    assert timeline.jumps == 0
    again, _ = moved(Clock.RESTARTS, [*packets, (PICTURE, 0)])
    assert again[-1] <= 300 * 40 + 800 + 40 + 80  # what is joined follows the last one


def test_a_short_part_without_sound_is_no_damage_if_the_sound_follows_it() -> None:
    packets = [(PICTURE, 0), (SOUND, 0), (PICTURE, 90_000), (SOUND, 90_000), (PICTURE, 40), (SOUND, 40)]
    times, timeline = moved(Clock.RESTARTS, packets)
    assert times == [0, 0, 40, 40, 80, 80]
    assert timeline.jumps == 2


def test_a_pts_far_from_a_sane_dts_is_not_believed() -> None:
    timeline = Timeline(Clock.RESTARTS)
    for number in range(50):
        pts = 40 * number + 18_000_000 * (number == 20)
        assert timeline.trusts(PICTURE, 40 * number, pts, MS) is (number != 20)
        assert timeline.offset(PICTURE, 40 * number, pts, 40, MS, None) == 0
    assert timeline.offset(PICTURE, 0, 0, 40, MS, None) == 2000
    assert timeline.trusts(SOUND, None, 18_000_000, MS)
    assert Timeline(Clock.CONTAINER).trusts(PICTURE, 0, 18_000_000, MS)
    slow = Timeline(Clock.RESTARTS)
    slow.offset(PICTURE, 0, 0, 5000, MS, None)
    assert slow.trusts(PICTURE, 5000, 20_000, MS)  # three B-frames


def test_a_correction_by_a_sender_report_moves_one_stream_and_is_no_jump() -> None:
    for is_rtp, jumps in ((True, 0), (False, 1)):
        timeline = Timeline(Clock.RESTARTS, is_rtp=is_rtp)
        offsets = []
        for number in range(100):
            for stream, back in ((PICTURE, 0), (SOUND, 500 * (number > 50))):
                time = 40 * number - back
                offsets.append(timeline.offset(stream, time, time, 40, MS, 0.04 * number))
        assert (offsets[-1] == 0, timeline.jumps) == (is_rtp, jumps)
    assert timeline.offset(PICTURE, 0, 0, 40, MS, 4.0) > 0  # a sender that starts again does so


def test_regular_long_steps_are_a_time_lapse() -> None:
    times, timeline = moved(Clock.RESTARTS, pictures(*range(0, 150_000, 15_000)))
    assert [late - early for early, late in pairwise(times)][1:] == [15_000] * 8
    assert timeline.jumps == 1


def test_stretches_that_every_stream_has_left_are_forgotten() -> None:
    timeline = Timeline(Clock.RESTARTS)
    for _ in range(100):
        for time in range(0, 400, 40):
            for stream in (PICTURE, SOUND):
                timeline.offset(stream, time, time, 40, MS, None)
    assert timeline.jumps == 99
    assert len(timeline._stretches) <= 3

"""The queue between stages: order, back-pressure, end and abort, with every waiter woken."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.channel import Channel, Closed, WhenFull


def read_all(channel: Channel[int]) -> list[int]:
    items = []
    try:
        while True:
            items.append(channel.get())
    except Closed:
        return items


@given(items=st.lists(st.integers(), max_size=50), capacity=st.integers(1, 5))
def test_blocking_channel_loses_and_reorders_nothing(items: list[int], capacity: int) -> None:
    channel: Channel[int] = Channel(capacity)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(read_all, channel)
        for item in items:
            assert channel.put(item) is None
        channel.close()
        assert read.result(5) == items


@given(items=st.lists(st.integers(), max_size=30), capacity=st.integers(1, 4))
def test_replacing_channel_keeps_the_newest_and_returns_the_rest(items: list[int], capacity: int) -> None:
    channel: Channel[int] = Channel(capacity, WhenFull.DROP_OLDEST)
    dropped = [old for item in items if (old := channel.put(item)) is not None]
    channel.close()
    kept = read_all(channel)
    assert dropped + kept == items
    assert kept == items[-capacity:] if items else kept == []


def test_close_drains_then_ends_and_refuses_new_items() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.close()
    channel.close()
    with pytest.raises(Closed):
        channel.put(2)
    assert channel.get() == 1
    with pytest.raises(Closed):
        channel.get()


def test_iteration_ends_with_the_stream_and_raises_what_it_was_aborted_with() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    channel.put(2)
    channel.close()
    assert list(channel) == [1, 2]
    aborted: Channel[int] = Channel(1)
    aborted.put(1)
    aborted.abort(ValueError("lost"))
    with pytest.raises(ValueError, match="lost"):
        next(iter(aborted))


def test_get_times_out_and_get_nowait_does_not_wait() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.get_nowait() is None
    with pytest.raises(TimeoutError):
        channel.get(0.001)


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("waiter", ["get", "put"])
def test_every_waiter_wakes(end: str, waiter: str) -> None:
    channel: Channel[int] = Channel(1)
    if waiter == "put":
        channel.put(0)
    waiting = threading.Event()
    error = RuntimeError("first")

    def wait() -> None:
        waiting.set()
        channel.get() if waiter == "get" else channel.put(1)

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(wait)
        assert waiting.wait(5)
        channel.close() if end == "close" else channel.abort(error)
        with pytest.raises((Closed, RuntimeError)) as caught:
            result.result(5)
    assert (caught.value is error) == (end == "abort")


def test_abort_drops_what_is_queued_and_the_first_error_wins() -> None:
    channel: Channel[int] = Channel(3)
    channel.put(1)
    first = ValueError("first")
    channel.abort(first)
    channel.abort(ValueError("second"))
    for use in (channel.get, channel.get_nowait, lambda: channel.put(2)):
        with pytest.raises(ValueError, match="first") as caught:
            use()
        assert caught.value is first


def test_waiting_time_is_counted_with_the_given_clock() -> None:
    now = iter(range(100))
    channel: Channel[int] = Channel(1, clock=lambda: float(next(now)))
    channel.put(1)
    assert channel.get() == 1
    assert channel.get_wait_s == 0.0
    with pytest.raises(TimeoutError):
        channel.get(0.0)
    assert channel.get_wait_s == 1.0


def test_capacity_must_be_positive() -> None:
    with pytest.raises(ValueError, match="capacity"):
        Channel(0)

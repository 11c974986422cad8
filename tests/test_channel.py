"""The queue between stages: order, back-pressure, end and abort, with every waiter woken."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.channel import Broadcast, Channel, Closed, HeldBack, Listener, WhenFull


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


# --- broadcasts ---


def test_every_listener_gets_everything_in_order_and_a_late_one_what_is_kept() -> None:
    broadcast: Broadcast[str] = Broadcast(capacity=3)
    assert not broadcast.has_listeners
    early = Listener(broadcast, 100)
    for item in "abcde":
        broadcast.put(item, 1)
    late = Listener(broadcast, 100)
    broadcast.put("f", 1)
    assert early.take() == list("abcdef")
    assert late.take() == list("cdef")
    assert early.take() == []
    assert broadcast.has_listeners
    broadcast.end()
    assert early.has_ended


def test_a_listener_that_takes_nothing_loses_the_oldest_and_counts_them() -> None:
    broadcast: Broadcast[int] = Broadcast(capacity=0)
    listener = Listener(broadcast, capacity=10)
    for number in range(7):
        broadcast.put(number, 4)
    assert (listener.take(), listener.lost) == ([5, 6], 5)
    broadcast.put(7, 400)  # larger than the limit alone: kept, so that something comes
    assert listener.take() == [7]


def test_a_listener_that_has_left_gets_nothing() -> None:
    broadcast: Broadcast[int] = Broadcast(capacity=10)
    listener = Listener(broadcast, 10)
    broadcast.put(1, 1)
    listener.close()
    listener.close()
    broadcast.put(2, 1)
    assert listener.take() == []
    assert not broadcast.has_listeners


def test_a_writer_waits_until_what_was_taken_is_released() -> None:
    channel = Channel[int](4, most=10)
    channel.put(1, 6)
    assert channel.get() == 1
    writer = threading.Thread(target=channel.put, args=(2, 5))
    writer.start()
    with pytest.raises(HeldBack):  # the reader, which has 1, learns that nothing more comes before it lets go
        channel.get_unless_held_back()
    channel.release(6)
    assert channel.get() == 2
    writer.join()
    channel.release(5)
    channel.put(3, 100)  # one alone may weigh more
    assert channel.get_unless_held_back() == 3
    channel.close()
    with pytest.raises(Closed):
        channel.get_unless_held_back()

"""The connections of the live page's server: how long each may take, how many there are, and which gives way.

Invariant: a connection is accepted whatever the others do. One that owes a request, or does not read its answer, is
closed at a deadline; when there are `MAX_CONNECTIONS`, the least useful one of the busiest address gives way at once.
Only streams (images and events) keep their place: `Seats` counts them, and takes a place from a viewer that has stopped
reading. What the server does for all clients together is limited to `SHARE` of one core: the run keeps its rate.

Importing this module imports uvicorn (extra `web`).
"""

import asyncio
import contextlib
import ipaddress
import random
import socket
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable
from enum import IntEnum, StrEnum
from math import inf
from typing import Any

import uvicorn
from h11 import IDLE, SEND_BODY, ProtocolError
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 128
"""Well below 256, the number of files that a process may open on macOS."""
REQUEST_S = 5.0
"""From the connection, or the first byte of a later request, to the last byte of its body; TLS handshake included."""
STALL_S = 10.0
"""A client that has not taken what was sent for so long is closed."""
SEAT_WAIT_S = 10.0
"""A viewer waits so long for a place before it is refused."""
SHARE = 0.05
"""Of one core, for connections and requests; the images of those who watch are not counted."""
_BURST_S = 4.0
"""After a quiet time, so many seconds' share is free: a page takes six requests, at about 1 ms each."""
_REQUEST_COST_S = 0.001
"""Beside parsing: measured with 10,000 requests of the page, 0.7 to 1.2 ms."""
_HANDSHAKE_COST_S = 0.002
_SLICE_BYTES = 4096
"""Fed to the parser at once: it checks its limit of 16 kB between two portions only."""
_MAX_AHEAD_BYTES = 16_384
"""Of requests that are sent before the current one is answered."""
_CHECK_S = 0.1
_ACCEPT_S = 0.1
"""At most so long after each connection, 0.2 ms of work: what requests cost holds nobody off the door."""
_SEND_BUFFER_BYTES = 1 << 17
"""Of a stream's socket. It bounds the age of images and shows early who does not read; Linux takes twice as much."""
_PROOF_BYTES = 1 << 20
"""More than the buffers of both ends hold: who has taken so much has read."""
_PATIENCE_S = {True: 2.0, False: 0.3}
"""While another viewer waits: how long one that has read (True) or never has (False) may be behind."""


class Cause(StrEnum):
    """Why the server closed a connection; the value is the counter in the report."""

    LATE = "page_closed_late"
    STALLED = "page_closed_not_reading"
    NOT_HTTP = "page_closed_not_http"
    GAVE_WAY = "page_closed_for_another"
    LOST_SEAT = "page_viewers_displaced"


class Phase(IntEnum):
    """What a connection is doing, in the order in which connections give way."""

    IDLE = 0
    ARRIVING = 1
    """The client owes a request, or the rest of it."""
    ANSWERING = 2


class Budget:
    """Processor time for all clients together: `SHARE` of one core. When it is used up they wait; none is refused.

    What is owed is paid off by all addresses at the same rate, so whoever owes little waits little.
    """

    def __init__(self) -> None:
        self._owed_s: dict[str, float] = {}
        self._free_s, self._paid_at_s = _BURST_S, time.monotonic()

    def charge(self, cost_s: float, peer: str) -> float:
        """Enter `cost_s` of processor time; returns the seconds until `peer` owes nothing."""
        self._pay()
        owed_s = self._owed_s.get(peer, 0.0) + cost_s / SHARE
        free_s = min(owed_s, self._free_s)
        self._free_s -= free_s
        if owed_s > free_s:
            self._owed_s[peer] = owed_s - free_s
        return min(sum(self._owed_s.values()), len(self._owed_s) * self._owed_s.get(peer, 0.0))

    def _pay(self) -> None:
        now = time.monotonic()
        passed_s, self._paid_at_s = now - self._paid_at_s, now
        while passed_s > 0 and self._owed_s:
            share_s, least_s = passed_s / len(self._owed_s), min(self._owed_s.values())
            passed_s = 0.0 if share_s < least_s else passed_s - least_s * len(self._owed_s)
            part_s = min(share_s, least_s)
            self._owed_s = {peer: owed_s - part_s for peer, owed_s in self._owed_s.items() if owed_s > part_s}
        self._free_s = min(_BURST_S, self._free_s + passed_s)


class Connection(H11Protocol):
    """One client, from `accept` on: its deadlines.

    It relies on the methods of `asyncio.Protocol`, and of uvicorn's class on `conn` (h11), `flow` and
    `on_response_complete`. The application finds it as `request.state.connection`.
    """

    def __init__(self, table: "Connections", peer: str) -> None:
        super().__init__(
            config=table.config, server_state=table.server_state, app_state={"connection": self}, _loop=table.loop
        )
        self.peer, self._table = peer, table
        self.phase, self.since_s = Phase.ARRIVING, table.loop.time()
        self.behind_since_s: float | None = None
        """Since when the client has not taken all that was sent; None if it has."""
        self.streamed_bytes = 0
        self.seats: Seats | None = None
        self.opening: asyncio.Task[None] | None = None
        self._is_made = False
        self._ahead_bytes = 0
        self._turn_s = 0.0
        """When its address will have paid what this connection has caused."""
        self._unsent_bytes = 0
        self._deadline: asyncio.TimerHandle | None = table.loop.call_later(REQUEST_S, self.drop, Cause.LATE)
        self._stalled: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """False once it is closing."""
        return self._is_made and not self.transport.is_closing()

    def drop(self, cause: Cause) -> None:
        """Close at once, with the data that were not taken."""
        self._table.closed[cause.value] += 1
        self.end()

    def end(self) -> None:
        """As `drop`, at the end of the server."""
        self.forget()
        if self._is_made:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def forget(self) -> None:
        """Give up the place in the table, and the seat."""
        self._table.open.pop(self, None)
        if self.seats is not None:
            self.seats.leave(self)
        for timer in self._deadline, self._stalled:
            if timer is not None:
                timer.cancel()
        self._deadline = self._stalled = None

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._is_made = True
        # `pause_writing` follows as soon as the system does not take everything: so `behind_since_s` is exact. asyncio
        # pauses a plain transport above this limit, and one with TLS at it (CPython 3.11 to 3.14).
        transport.set_write_buffer_limits(high=0 if self.scheme == "http" else 1, low=0)
        self._owe(0.0)
        if (pause_s := self._turn_s - self.loop.time()) > 0:  # before its first request
            self._arm_deadline(pause_s + REQUEST_S)
            transport.pause_reading()
            self.loop.call_later(pause_s, self._read_on)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        began_s = time.thread_time()
        if self.phase is Phase.IDLE:
            self._enter(Phase.ARRIVING)
        try:
            for start in range(0, len(data), _SLICE_BYTES):
                part = data[start : start + _SLICE_BYTES]
                self._ahead_bytes += len(part) * (self.phase is Phase.ANSWERING)
                if self._ahead_bytes > _MAX_AHEAD_BYTES:
                    self.drop(Cause.NOT_HTTP)
                if not self.is_open:
                    return
                super().data_received(part)
                self._settle()
        except ProtocolError:  # an answer has begun, so uvicorn's own of 400 cannot be sent
            self.drop(Cause.NOT_HTTP)
            return
        self._owe(time.thread_time() - began_s)
        if (pause_s := self._turn_s - self.loop.time()) > 0 and self.is_open:
            self.transport.pause_reading()
            self.loop.call_later(pause_s, self._read_on)

    def on_response_complete(self) -> None:
        """Called by uvicorn. The next request may be there already: it waits for its turn, too."""
        if (pause_s := self._turn_s - self.loop.time()) > 0 and self.is_open:
            self.loop.call_later(pause_s, self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        began_s = time.thread_time()
        if self.phase is Phase.ANSWERING:  # otherwise the answer was early, and the body is still to come
            self._enter(Phase.IDLE)
        super().on_response_complete()
        self._settle()
        self._owe(time.thread_time() - began_s)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        if self.behind_since_s is None:
            self.behind_since_s = self.loop.time()
            self._watch_taking()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        self.behind_since_s = None
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def charge(self, cost_s: float) -> float:
        """See `Budget`."""
        return self._table.budget.charge(cost_s, self.peer)

    async def taken(self) -> None:
        """Wait until the system has taken everything that was sent."""
        await self.flow.drain()

    def _owe(self, cost_s: float) -> None:
        self._turn_s = self.loop.time() + self.charge(cost_s)

    def _watch_taking(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(STALL_S, self._check_taking)

    def _check_taking(self) -> None:
        if self.transport.get_write_buffer_size() < self._unsent_bytes:
            self._watch_taking()
        else:
            self.drop(Cause.STALLED)

    def _settle(self) -> None:
        """Find the phase from the parser's state."""
        theirs = self.conn.their_state
        if theirs is SEND_BODY or (theirs is IDLE and (self.phase is Phase.ARRIVING or self.conn.trailing_data[0])):
            self._enter(Phase.ARRIVING)
        elif theirs is not IDLE:
            self._enter(Phase.ANSWERING)

    def _enter(self, phase: Phase) -> None:
        if phase is self.phase or not self.is_open:
            return
        if phase is Phase.ANSWERING:
            self._owe(_REQUEST_COST_S)
        self.phase, self.since_s, self._ahead_bytes = phase, self.loop.time(), 0
        self._arm_deadline(REQUEST_S if phase is Phase.ARRIVING else None)

    def _arm_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.drop, Cause.LATE)

    def _read_on(self) -> None:
        if self.is_open and not self.flow.read_paused:  # uvicorn may have paused it for reasons of its own
            self.transport.resume_reading()


class Connections:
    """All of them.

    Args:
        config: uvicorn's, loaded.
        server_state: the server's.
        tls: how to speak TLS; None for plain HTTP.
        closed: counts, by `Cause`.
    """

    def __init__(
        self, config: uvicorn.Config, server_state: Any, tls: ssl.SSLContext | None, closed: Counter[str]
    ) -> None:
        self.config, self.server_state, self._tls, self.closed = config, server_state, tls, closed
        self.loop = asyncio.get_running_loop()
        self.budget = Budget()
        self.open: dict[Connection, None] = {}

    async def accept(self, listener: socket.socket) -> None:
        """Accept connections until it is cancelled."""
        listener.setblocking(False)
        while True:
            try:
                client, address = await self.loop.sock_accept(listener)
            except OSError:  # the client has gone, or the process may open no more files
                self._make_way()
                await asyncio.sleep(_CHECK_S)
                continue
            began_s = time.thread_time()
            if len(self.open) >= MAX_CONNECTIONS:
                self._make_way()
            connection = Connection(self, peer_group(address[0]))
            self.open[connection] = None
            connection.opening = self.loop.create_task(self._open(connection, client))
            cost_s = 2 * (time.thread_time() - began_s) + (_HANDSHAKE_COST_S if self._tls else 0.0)
            await asyncio.sleep(min(self.budget.charge(cost_s, ""), _ACCEPT_S))

    def end(self) -> None:
        """Close all."""
        for connection in list(self.open):
            connection.end()

    async def _open(self, connection: Connection, client: socket.socket) -> None:
        limits = {"ssl_handshake_timeout": REQUEST_S, "ssl_shutdown_timeout": 1.0} if self._tls else {}
        try:
            # asyncio does it for sockets that name their protocol only; without it every answer's body waits 40 ms for
            # the browser's acknowledgement of its head.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.connect_accepted_socket(lambda: connection, client, ssl=self._tls, **limits)
        except OSError:  # no TLS, or gone
            connection.forget()
        except asyncio.CancelledError:
            connection.forget()
            client.close()

    def _make_way(self) -> None:
        """Drop the connection that is the least useful, of the address that has the most."""
        shares = Counter(connection.peer for connection in self.open)

        def usefulness(one: Connection) -> tuple[float, ...]:
            # Who asks at once has been answered long before it is the oldest. Of those that wait for a place, the
            # oldest are the next to get one, and the newest came last: so none of them is preferred.
            age = random.random() if one.phase is Phase.ANSWERING else one.since_s
            return -shares[one.peer], one.phase, inf if one.behind_since_s is None else one.behind_since_s, age

        candidates = [connection for connection in self.open if connection.seats is None]
        if candidates:
            min(candidates, key=usefulness).drop(Cause.GAVE_WAY)


class Seats:
    """The places for one kind of stream.

    While a viewer waits, those who watch have to show that they read: `is_contested` asks them to be sent more than
    their buffers hold. A place then goes from the one that has been behind for longest, or from an address that has at
    least two more, to the first of the address that has the fewest.

    Args:
        limit: how many there are.
        probe: called while a viewer waits, to have something sent to all.
        count: called with the number of places taken whenever it changes.
    """

    def __init__(
        self, limit: int, *, probe: Callable[[], None] = lambda: None, count: Callable[[int], None] = lambda _: None
    ) -> None:
        self._limit, self._probe, self._count = limit, probe, count
        self.taken: dict[Connection, None] = {}
        self._waiting: deque[Connection] = deque()

    @property
    def is_contested(self) -> bool:
        """True while a viewer waits."""
        return bool(self._waiting)

    async def take(self, connection: Connection) -> bool:
        """Wait for a place; False if there is none within `SEAT_WAIT_S`."""
        loop = connection.loop
        until_s = loop.time() + SEAT_WAIT_S
        self._waiting.append(connection)
        try:
            while connection.is_open:
                if self._next() is connection and (len(self.taken) < self._limit or self._displace(connection)):
                    self.taken[connection] = None
                    self._count(len(self.taken))
                    connection.seats = self
                    with contextlib.suppress(OSError):
                        end: socket.socket = connection.transport.get_extra_info("socket")
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
                    return True
                if loop.time() >= until_s:
                    break
                if self._waiting[0] is connection:
                    self._probe()
                await asyncio.sleep(_CHECK_S)
        finally:
            self._waiting.remove(connection)
        return False

    def leave(self, connection: Connection) -> None:
        """Give up a place; does nothing without one."""
        self.taken.pop(connection, None)
        self._count(len(self.taken))
        connection.seats = None

    def _shares(self) -> Counter[str]:
        return Counter(connection.peer for connection in self.taken)

    def _next(self) -> Connection:
        shares = self._shares()
        waiting = [one for one in self._waiting if one.is_open]
        return min(waiting, key=lambda one: shares[one.peer])  # the first of the least

    def _displace(self, newcomer: Connection) -> bool:
        now = newcomer.loop.time()
        behind = [
            (one.behind_since_s, one)
            for one in self.taken
            if one.behind_since_s is not None
            and now - one.behind_since_s >= _PATIENCE_S[one.streamed_bytes >= _PROOF_BYTES]
        ]
        shares = self._shares()
        most = max(shares, key=lambda peer: shares[peer])
        if behind:
            victim = min(behind, key=lambda pair: pair[0])[1]
        elif shares[most] >= shares[newcomer.peer] + 2:
            victim = next(one for one in reversed(self.taken) if one.peer == most)
        else:
            return False
        victim.drop(Cause.LOST_SEAT)
        return True


def peer_group(address: str) -> str:
    """The address whose connections count together: an IPv6 host has a whole /64 network."""
    try:
        host = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(host, ipaddress.IPv6Address):
        return str(host.ipv4_mapped or ipaddress.ip_network((host, 64), strict=False))
    return str(host)

"""Measures what hostile clients of the live page cost a run: its rate, its memory, and its honest viewers (Linux).

    python scripts/measure/page_load.py [--phases 60,180,60] [--hostile 190] [--viewers 10] [--output FILE.json]

One run shows its page on 127.0.0.1 all the time. In the phases with even numbers only the viewers are there; in those
with odd numbers the hostile clients are, too. Prints a line for each phase, and writes all of them as JSON.
"""

import argparse
import asyncio
import contextlib
import json
import re
import signal
import socket
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ASK = "GET /{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
KINDS = ("silent", "half", "dripping", "not reading", "not listening", "reconnecting")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Load:
    """Clients of the page at `port`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.images = 0
        self.refused = 0
        self.cut = 0
        self.opened_s: list[float] = []
        self.hostile = Counter[str]()

    async def connect(self, *, buffer: int = 0) -> Streams:
        """A connection that has sent nothing; `buffer` bytes to receive into, 0 for the system's choice."""
        client = socket.socket()
        client.setblocking(False)
        if buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=client, limit=1 << 16)

    def ask(self, path: str) -> bytes:
        """A request."""
        return ASK.format(path=path, port=self.port).encode()

    async def watch(self) -> None:
        """An honest viewer: reads images for ever."""
        while True:
            reader, writer = await self.connect()
            try:
                writer.write(self.ask("pictures"))
                if b" 200 " not in await reader.readline():
                    self.refused += 1
                    continue
                while data := await reader.read(1 << 16):
                    self.images += data.count(b"Content-Type: image/jpeg")
                self.cut += 1
            except OSError:
                self.cut += 1
            finally:
                writer.close()

    async def visit(self) -> None:
        """An honest visitor: opens the page by a new connection once a second."""
        while True:
            began_s = time.monotonic()
            try:
                reader, writer = await self.connect()
                writer.write(self.ask(""))
                ok = b" 200 " in await asyncio.wait_for(reader.readline(), 10)
                writer.close()
            except (OSError, TimeoutError):
                ok = False
            self.refused += not ok
            self.opened_s.append(time.monotonic() - began_s)
            await asyncio.sleep(1)

    async def attack(self, kind: str) -> None:
        """A hostile client, which connects again whenever it is closed."""
        while True:
            self.hostile[kind] += 1
            with contextlib.suppress(OSError, TimeoutError):
                await getattr(self, f"_{kind.replace(' ', '_')}")()
            await asyncio.sleep(0.05)

    async def _held(self, sent: bytes, *, buffer: int = 0, drips: bool = False) -> None:
        reader, writer = await self.connect(buffer=buffer)
        try:
            if buffer:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(sent)
            while not writer.is_closing():
                if drips:
                    writer.write(b"x")
                await asyncio.sleep(0.5)
                if not buffer and reader.at_eof():
                    return
                if buffer:
                    writer.write(b"")
                    end: Any = writer.get_extra_info("socket")
                    if end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1:  # no longer established
                        return
        finally:
            writer.transport.abort()

    async def _silent(self) -> None:
        await self._held(b"")

    async def _half(self) -> None:
        await self._held(self.ask("")[:30])

    async def _dripping(self) -> None:
        await self._held(self.ask("")[:-2] + b"X: ", drips=True)

    async def _not_reading(self) -> None:
        await self._held(self.ask("pictures"), buffer=4096)

    async def _not_listening(self) -> None:
        await self._held(self.ask("events"), buffer=4096)

    async def _reconnecting(self) -> None:
        reader, writer = await self.connect()
        try:
            writer.write(self.ask(""))
            await reader.read(4096)
        finally:
            writer.transport.abort()

    async def frames(self) -> int:
        """Frames that the run has shown so far, from the page's numbers; a refusal is counted, and it asks again."""
        while True:
            reader, writer = await self.connect()
            try:
                writer.write(self.ask("events"))
                async with asyncio.timeout(20):
                    while line := await reader.readline():
                        if line.startswith(b"data: "):
                            rows = dict(json.loads(line[6:])["numbers"])
                            return int(re.sub(r"\D", "", str(rows["frames"])))
            except (OSError, TimeoutError):
                pass
            finally:
                writer.close()
            self.refused += 1


def resident_mb(process: int) -> float:
    """Memory of a process; see proc(5)."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


async def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the command and all phases."""
    command = ["-m", "stream", "run", "pattern:testsrc2", "--serve", "127.0.0.1:0", "--set", "capture.max_frames=null"]
    command += ["--input-size", "448"]  # above what two cores can do at 30 fps, so that whatever else they do shows
    run = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    assert run.stderr is not None
    while not (at := re.search(rb"watch at http://127\.0\.0\.1:(\d+)/", line := await run.stderr.readline())):
        if not line:
            raise SystemExit("the run ended early")
    load = Load(int(at[1]))

    async def drained(stderr: asyncio.StreamReader) -> bytes:
        return (await stderr.read())[-2000:]

    said = asyncio.create_task(drained(run.stderr))
    viewers = [asyncio.create_task(load.watch()) for _ in range(options.viewers)]
    viewers += [asyncio.create_task(load.visit()) for _ in range(options.viewers)]
    await asyncio.sleep(options.warm_up)
    phases = []
    for number, length_s in enumerate(float(text) for text in options.phases.split(",")):
        count = options.hostile * (number % 2)
        hostile = [asyncio.create_task(load.attack(KINDS[which % len(KINDS)])) for which in range(count)]
        load.images, load.refused, load.cut, load.opened_s, load.hostile = 0, 0, 0, [], Counter()
        frames, began_s, memory_mb = await load.frames(), time.monotonic(), resident_mb(run.pid)
        await asyncio.sleep(length_s)
        shown, took_s = await load.frames() - frames, time.monotonic() - began_s
        phases.append(
            {
                "hostile": count,
                "seconds": round(took_s, 1),
                "frames_per_s": round(shown / took_s, 2),
                "images_per_viewer_per_s": round(load.images / options.viewers / took_s, 2),
                "refused": load.refused,
                "cut": load.cut,
                "page_opened_ms": round(1000 * statistics.median(load.opened_s)),
                "page_opened_longest_ms": round(1000 * max(load.opened_s)),
                "memory_mb": [round(memory_mb), round(resident_mb(run.pid))],
                "open_files": len(list(Path(f"/proc/{run.pid}/fd").iterdir())),
                "connections_tried": dict(load.hostile),
            }
        )
        print(json.dumps(phases[-1]), flush=True)
        for task in hostile:
            task.cancel()
        await asyncio.gather(*hostile, return_exceptions=True)
        await asyncio.sleep(1)
    for task in viewers:
        task.cancel()
    run.send_signal(signal.SIGINT)
    print((await said).decode(errors="replace").splitlines()[-2:], file=sys.stderr)
    await run.wait()
    return phases


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phases", default="60,180,60")
    parser.add_argument("--hostile", type=int, default=190)
    parser.add_argument("--viewers", type=int, default=10)
    parser.add_argument("--warm-up", type=float, default=20.0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    phases = asyncio.run(measure(options))
    if options.output is not None:
        options.output.write_text(json.dumps(phases, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The live page's server with a pipeline's thread to feed it by hand, and a certificate that tests may trust."""

import json
import socket
import ssl
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio._backends._asyncio
import anyio._core._fileio  # noqa: F401  before threads run: pytest rewrites anyio, and CPython 3.11 cannot do that in two
import httpx
import numpy as np

from stream.frames import Depth, DepthKind, Frame, SourceInfo, SourceKind
from stream.live.address import parse_address
from stream.live.browser import BrowserSink, Page
from stream.live.preview import Preview
from stream.metrics import Metrics
from stream.render.layout import Layout
from stream.render.range import EmaRange
from stream.render.renderer import Renderer
from stream.sinks.video import VideoSink

SIZE = (48, 64)
WAIT_S = 20.0

# Made with OpenSSL for localhost and 127.0.0.1, valid from 2020 to 2120, for these tests alone.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBZjCCAQ2gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABHpZA6BEfh+SJDI2
3lbyQZxu2QZ+RQlqK//8Ndd97hKlhLMCMYNgWqYrNuKHsaPqBgjGVxnpe1og0HXq
3MKxZgSjTjBMMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAPBgNVHRMBAf8E
BTADAQH/MB0GA1UdDgQWBBQF9zuXTKSV3cbK1vhryFEo25kV6jAKBggqhkjOPQQD
AgNHADBEAiBuVFInL2ah8fmhnsmMTAg/G0geq2qvECwBRPnRqyIa0gIgR5w/B1qa
VjeCO3tJmAopVYJaj6g4Dbu1Dm78rjDiJqc=
-----END CERTIFICATE-----
"""
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQghP8rAxL2Dptpfoca
O6uu6Z704/1de9CTn1b/yVfzYkyhRANCAAR6WQOgRH4fkiQyNt5W8kGcbtkGfkUJ
aiv//DXXfe4SpYSzAjGDYFqmKzbih7Gj6gYIxlcZ6XtaINB16tzCsWYE
-----END PRIVATE KEY-----
"""
ANOTHER_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgEaae9tTrifQ1vRCT
4TdCQa8NwWZLUAHdEbgC2F/dngKhRANCAARPPfHuxuUV8Et6YEO8Ww9+ox8IBIDi
KqADrOsBQi9OQQ0eX0sxV7vXo7nAZ2Fwmui2gW2Z7QyYC2iX8f8a2MGI
-----END PRIVATE KEY-----
"""
LOCKED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhVpcExi0KIjgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEECF34zIs5eSUVMApDoRu43QEgZB3
6Q/xyyFC0m7cBwXOJwyp1Ac21RdWam/I06MJPMdQLNIbLTRMnHv+UWZYOhtMlkgD
zE/5QoeVMlgTdVHrE3OEE8F9SHF2lpLsjRP1Nmhnd1p08CfuYBLVJgFHtSrTLbiv
D/lr4DmUqEZY1e/8KnZ+xBrb4e2IJjqb95ax2+4rai4ABpE1gXgzEIGVpzu/0Qs=
-----END ENCRYPTED PRIVATE KEY-----
"""
"""`KEY` under a password."""


class Models:
    names = ("one", "two")
    current = 0


class Live:
    """A sink that serves, and a pipeline's thread to feed it by hand."""

    def __init__(
        self,
        folder: Path,
        address: str = "127.0.0.1:0",
        token: str | None = None,
        names: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.said: list[str] = []
        renderer = Renderer(layout=Layout.SIDE, colormap="inferno", range_policy=EmaRange())
        self.preview = Preview(
            renderer, models=Models(), record=VideoSink, folder=folder, writes_text=False, say=self.said.append
        )
        self.preview.metrics = Metrics()
        page = Page(parse_address(address), token=token, names=names, tls=tls, say=self.said.append)
        self.sink = BrowserSink(page, controls=self.preview)
        verify: ssl.SSLContext | bool = True
        if tls is not None:
            verify = ssl.create_default_context(cadata=CERTIFICATE)
        info = SourceInfo(
            name="cam:0", size=SIZE, is_live=True, time_base=Fraction(1, 1000), rate=None, frame_count=None,
            kind=SourceKind.CAMERA,
        )  # fmt: skip
        self.sink.open(info, SIZE)
        self.url = self.sink.outputs[0]
        self.port = int(self.url.rpartition(":")[2].rstrip("/"))
        self.client = httpx.Client(base_url=self.url, timeout=WAIT_S, trust_env=False, verify=verify)
        self.count = 0

    def feed(self, size: tuple[int, int] = SIZE) -> bool:
        rgb = np.full((*size, 3), self.count % 256, np.uint8)
        frame = Frame(index=self.count, pts=self.count, time_base=Fraction(1, 1000), captured_at=0.0, rgb=rgb)
        values = np.random.default_rng(self.count).random(size, np.float32)
        depth = Depth(values=values, kind=DepthKind.RELATIVE_DISPARITY, index=self.count)
        self.count += 1
        shown = self.sink.write(frame, depth, rgb)
        self.sink.poll()
        return shown

    def command(self, name: str, value: object) -> httpx.Response:
        answer = self.client.post("command", json={"name": name, "value": value})
        self.sink.poll()
        return answer

    def state(self) -> dict[str, Any]:
        with self.client.stream("GET", "events") as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    return dict(json.loads(line[6:]))
        raise AssertionError("no state")

    def connect(self, path: str = "/pictures") -> socket.socket:
        """A viewer with a small receive buffer that has asked and reads nothing yet."""
        viewer = socket.socket()
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        viewer.settimeout(WAIT_S)
        viewer.connect(("127.0.0.1", self.port))
        viewer.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
        return viewer

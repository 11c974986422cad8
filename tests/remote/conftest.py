"""A bucket server for the tests of this folder, and the environment that leads to it."""

import os
from collections.abc import Iterator

import pytest

from stream.remote import access
from tests.support.s3_server import LOGIN, MISSING, S3Server, s3_server


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server; the environment has its address and a login."""
    if MISSING:
        pytest.skip("s3fs, paramiko or moto is not installed")
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    with s3_server() as server:
        for name, value in LOGIN.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setattr(access, "PAUSES_S", (0.0, 0.0, 0.0))
        access._shared.cache_clear()  # of another server
        yield server
        access._shared.cache_clear()

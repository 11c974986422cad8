"""A server on 127.0.0.1 that speaks S3 (moto's), which counts what it is asked for and fails on demand."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MISSING = "CI" not in os.environ and any(find_spec(name) is None for name in ("s3fs", "moto", "flask", "paramiko"))
"""What is needed is not installed. Under CI that is a failure."""
KEY = "test-key"
SECRET = "test-secret-0123456789"
_REFUSAL = (
    b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><Message>The AWS Access Key Id you provided does not "
    b"exist in our records.</Message></Error>"
)
_BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class S3Server:
    """See `s3_server`.

    Attributes:
        requests: (method, path with query) of each.
        sent: bytes of all bodies of answers to GET.
        refuses: called with method, path and query before each request; True answers with 503.
    """

    def __init__(self) -> None:
        from moto.s3.models import s3_backends
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            def log(self, *_arguments: Any) -> None:
                pass

        s3_backends.reset()  # moto keeps the buckets of a process together
        self._app = DomainDispatcherApplication(create_backend_app)
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        self.refuses: Callable[[str, str], bool] = lambda _method, _path: False
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self._is_up = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def put(self, bucket: str, files: dict[str, Any]) -> None:
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for name, content in files.items():
            client.put_object(
                Bucket=bucket, Key=name, Body=content.read_bytes() if isinstance(content, Path) else content
            )
        self.forget()

    def client(self) -> Any:
        """A second reader and writer: boto3's."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def names(self, bucket: str) -> list[str]:
        return sorted(one["Key"] for one in self.client().list_objects_v2(Bucket=bucket).get("Contents", []))

    def content(self, bucket: str, name: str) -> bytes:
        body: bytes = self.client().get_object(Bucket=bucket, Key=name)["Body"].read()
        return body

    def unfinished(self, bucket: str) -> list[str]:
        """Uploads in parts that were neither completed nor aborted."""
        return [one["Key"] for one in self.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])]

    def forget(self) -> None:
        """Count from nothing."""
        self.requests.clear()
        self.sent = 0

    def die(self) -> None:
        """Accept no connection any more."""
        if self._is_up:
            self._is_up = False
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]
        path = f"{path}?{query}" if query else path
        self.requests.append((method, path))
        login = environ.get("HTTP_AUTHORIZATION", "")
        if f"Credential={KEY}/" not in login:
            start_response("403 Forbidden", [("Content-Length", str(len(_REFUSAL)))])
            return [b"" if method == "HEAD" else _REFUSAL]
        if self.refuses(method, path):
            start_response("503 Slow Down", [("Content-Length", str(len(_BUSY)))])
            return [b"" if method == "HEAD" else _BUSY]
        parts = list(self._app(environ, start_response))
        self.sent += sum(map(len, parts)) if method == "GET" else 0
        return parts


LOGIN = {
    "AWS_ACCESS_KEY_ID": KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server that is up until the block ends; the environment has to name it, see `LOGIN`."""
    server = S3Server()
    try:
        yield server
    finally:
        server.die()

"""Where the live page is served, and under which certificate; checked before a run starts.

Invariant: whatever is wrong with an address, a certificate or a key is one line, and nothing asks on the terminal.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from stream.config import DEFAULT_SERVE
from stream.errors import ConfigError, UsageError, reason_of
from stream.live.guard import is_loopback_name


@dataclass(frozen=True)
class Address:
    """Where to serve: `host` as given, `port` 0 for any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach it."""
        return is_loopback_name(self.host)


def parse_address(text: str) -> Address:
    """`HOST:PORT`, `HOST`, `PORT`, `:PORT` or `[::1]:PORT`.

    Raises:
        UsageError: none of these, or a port outside 0 to 65535.
    """
    default = DEFAULT_SERVE.rpartition(":")
    host, port = text, default[2]
    if text.isdecimal():
        host, port = "", text
    elif text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{port!r} is not a port", where=f"--serve {text}", allowed="HOST:PORT, port up to 65535")
    return Address(host or default[0], int(port))


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """What a server needs to speak TLS 1.2 and later.

    Args:
        certificate: PEM file of the certificate, followed by those that sign it.
        key: PEM file of its private key, without a password; None if `certificate` holds it too.

    Raises:
        ConfigError: a file cannot be read or is no such file, or the key is another certificate's or has a password.
    """
    key_flag, key_file = ("--serve-cert", certificate) if key is None else ("--serve-key", key)
    texts = {flag: _pem(flag, file) for flag, file in (("--serve-cert", certificate), (key_flag, key_file))}
    if "-----BEGIN CERTIFICATE-----" not in texts["--serve-cert"]:
        raise ConfigError("holds no certificate", where=f"--serve-cert {certificate}", allowed="a PEM file")
    if "PRIVATE KEY-----" not in texts[key_flag]:
        hint = "add --serve-key and the file of the key" if key is None else ""
        raise ConfigError("holds no private key", where=f"{key_flag} {key_file}", allowed="a PEM file", hint=hint)

    def no_password() -> NoReturn:  # without it, OpenSSL asks on the terminal
        hint = "make a copy without one: openssl pkey -in KEY -out COPY"
        raise ConfigError("the key has a password", where=f"{key_flag} {key_file}", hint=hint)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except (OSError, ValueError) as error:
        # Certificate and key are told apart by OpenSSL's reason alone: it reports both as errors of one call.
        reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
        if "MISMATCH" in reason:
            raise ConfigError("the key is not that of the certificate", where=f"{key_flag} {key_file}") from error
        where = f"--serve-cert {certificate}" + ("" if key is None else f" --serve-key {key}")
        what = f"cannot be used for TLS: {reason.replace('_', ' ').lower() or reason_of(error)}"
        raise ConfigError(what, where=where, allowed="PEM files") from error
    return context


_MAX_PEM_BYTES = 1 << 20


def _pem(flag: str, file: Path) -> str:
    """The text of a file; a pipe or a device, which may never end, is refused."""
    where = f"{flag} {file}"
    try:
        if not file.stat() or not file.is_file():
            raise ConfigError("is not a file", where=where)
        if file.stat().st_size > _MAX_PEM_BYTES:
            raise ConfigError("is too large for a PEM file", where=where, allowed="up to 1 MB")
        return file.read_text(encoding="latin-1")
    except OSError as error:
        raise ConfigError(f"cannot be read: {reason_of(error)}", where=where) from error

"""What a source may open beside itself: files, hosts and addresses that a file or a server names."""

import ast
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stream.capture.open import open_source
from stream.capture.video import reach as reaching
from stream.capture.video.addresses import is_public
from stream.capture.video.network import open_network
from stream.capture.video.playlist import MOST_BYTES, MOST_PLAYLISTS, MOST_SEGMENTS, PlaylistLimits
from stream.capture.video.reach import MOST_REDIRECTS, Reach
from stream.config import CaptureConfig
from stream.errors import SourceError, UsageError
from stream.media import av, open_input
from tests.support import picture_files as pictures
from tests.support.media_files import number_of, write_video
from tests.support.paths import REPOSITORY
from tests.support.servers import WAIT_S, Answer, HttpServer, tcp_server

KIND = "application/vnd.apple.mpegurl"
LIMITS = CaptureConfig(open_timeout_s=5, read_timeout_s=5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames of MPEG-TS, which FFmpeg takes from any offset and in any list."""
    return write_video(tmp_path_factory.mktemp("reach") / "clip.ts", frames=10, gop=5)


def playlist(uri: str, *, tags: str = "") -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{tags}#EXTINF:0.4,\n{uri}\n#EXT-X-ENDLIST\n".encode()


def numbers(source: Any) -> list[int]:
    with closing(source):
        return [number_of(frame.rgb) for frame in source]


# --- local files ---


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.m3u8", playlist("clip.ts").decode()),
        ("list.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nother.m3u8\n"),
        ("clip.mp4", "ffconcat version 1.0\nfile clip.ts\n"),
        ("loop.mp4", "ffconcat version 1.0\nfile loop.mp4\n"),
        ("camera.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"),
    ],
)
def test_a_local_file_that_names_others_is_refused(tmp_path: Path, clip: Path, name: str, content: str) -> None:
    shutil.copy(clip, tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match="is a list that names other files or hosts") as refusal:
        open_source(str(tmp_path / name))
    assert str(refusal.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(refusal.value)


def test_a_local_playlist_that_is_asked_for_reads_its_own_folder(tmp_path: Path, clip: Path) -> None:
    asked = LIMITS.model_copy(update={"input_options": {"reach": "folder"}})
    (tmp_path / "in" / "low").mkdir(parents=True)
    shutil.copy(clip, tmp_path / "in" / "low" / "a.ts")
    shutil.copy(clip, tmp_path / "outside.ts")
    (tmp_path / "in" / "link.ts").symlink_to(tmp_path / "outside.ts")
    (tmp_path / "in" / "media.m3u8").write_bytes(playlist("low/a.ts"))
    path = tmp_path / "in" / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmedia.m3u8\n")
    assert numbers(open_source(str(path), options=asked)) == list(range(10))
    assert numbers(open_source(str(clip), options=asked)) == list(range(10))
    for uri in (
        str(tmp_path / "outside.ts"),
        "../outside.ts",
        "link.ts",
        "http://127.0.0.1:9/a.ts",
        "low/../../outside.ts",
    ):
        path.write_bytes(playlist(uri))
        with pytest.raises(SourceError, match="which is no file in the playlist's own folder"):
            open_source(str(path), options=asked)
    (tmp_path / "in" / "key").write_bytes(bytes(16))
    path.write_bytes(playlist("low/a.ts", tags='#EXT-X-KEY:METHOD=AES-128,URI="key"\n'))
    with pytest.raises(SourceError, match="its segments are encrypted, which is read over http and https only"):
        open_source(str(path), options=asked)
    with pytest.raises(UsageError, match="reach=folder is for a local playlist"):
        open_source("http://127.0.0.1:9/a.m3u8", options=asked)
    with pytest.raises(UsageError, match="a video is no network source"):
        open_source(str(clip), options=LIMITS.model_copy(update={"input_options": {"reach": "private"}}))


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
@pytest.mark.parametrize(
    "name",
    ["concat:other.ts", "subfile,,start,0,end,0,,:other.ts", "cache:other.ts", "crypto:other.ts", "data:,", "pipe:0",
     "-", "x://other.ts", "a%d.ts"],
)  # fmt: skip
def test_a_name_is_never_a_protocol(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "other.ts", frames=2)
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    shutil.copy(clip, name)
    with open_input(name) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10


def test_a_gif_with_the_name_of_a_numbered_series_is_itself(tmp_path: Path) -> None:
    pictures.animated(tmp_path / "a%d.gif", [pictures.scene(), pictures.scene()[::-1]], [40, 40])
    with closing(open_source(str(tmp_path / "a%d.gif"))) as source:
        assert len(list(source)) == 2


def test_a_pipe_that_names_files_is_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clip.parent)
    reading, writing = os.pipe()
    os.write(writing, b"ffconcat version 1.0\nfile clip.ts\n")
    os.close(writing)
    with pytest.raises(SourceError, match="is a list that names other files or hosts"):
        open_source(f"/dev/fd/{reading}")
    os.close(reading)


def test_a_demuxer_of_devices_or_of_the_network_is_refused_for_a_file(clip: Path) -> None:
    for scheme in ("tcp", "http", "udp"):
        with pytest.raises((OSError, ValueError)):
            open_input(f"file:{scheme}://127.0.0.1:9/{clip}")
    with open_input(f"file:{clip}") as container:
        allowed = container.container_options["format_whitelist"].split(",")
    for name in ("concat", "hls", "image2", "lavfi", "rtp", "rtsp", "sap", "sdp", "vobsub"):
        assert name not in allowed
    assert {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "avi", "gif"} - {*allowed, container.format.name} <= {
        "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
    }  # fmt: skip


def test_nothing_is_opened_for_reading_without_the_leash() -> None:
    opened = []
    for path in sorted((REPOSITORY / "stream").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "av.open":
                is_written = len(call.args) > 1 and ast.unparse(call.args[1]) == "'w'"
                opened += [] if is_written else [path.name]
    assert opened == ["media.py"]


# --- what a server names ---


@pytest.fixture
def other() -> Iterator[HttpServer]:
    """A server that only this machine may reach; nobody must ask it."""
    with HttpServer({}) as server:
        yield server


def hostile(uri: str, how: str, clip: Path) -> dict[str, Answer]:
    """A server whose `/list.m3u8` leads to `uri`."""
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="{uri}",IV=0x{0:032}\n'
    answers = {
        "redirect": Answer(location=uri),
        "segment": Answer(playlist(uri), kind=KIND),
        "key": Answer(playlist("/clip.ts", tags=key), kind=KIND),
        "map": Answer(playlist("/clip.ts", tags=f'#EXT-X-MAP:URI="{uri}"\n'), kind=KIND),
        "variant": Answer(f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{uri}\n".encode(), kind=KIND),
        "segment that redirects": Answer(playlist("/there.ts"), kind=KIND),
    }
    return {"/list.m3u8": answers[how], "/clip.ts": Answer(clip.read_bytes()), "/there.ts": Answer(location=uri)}


@pytest.mark.parametrize("how", ["redirect", "segment", "key", "map", "variant", "segment that redirects"])
@pytest.mark.parametrize("uri", ["http://127.0.0.1:{port}/x.ts", "http://2130706433:{port}/x.ts", "file://{file}"])
def test_a_server_leads_to_no_other_port_or_file(how: str, uri: str, clip: Path, other: HttpServer) -> None:
    named = uri.format(port=other.url("").rpartition(":")[2], file=clip)
    with HttpServer(hostile(named, how, clip)) as server:
        url = server.url("/list.m3u8")
        with pytest.raises(SourceError) as refusal:
            open_source(url, options=LIMITS)
    said = str(refusal.value)
    assert said.startswith(f"{url}: names {named}, which ")
    assert ("has a private address" if named.startswith("http") else "is file:, not http or https") in said
    assert other.requests == []


@pytest.mark.parametrize("scheme", ["tcp", "udp", "rtp", "ftp", "gopher", "rtmp", "concat:file", "subfile,,x,,:http"])
def test_a_redirect_leads_to_no_other_protocol(scheme: str, clip: Path, other: HttpServer) -> None:
    address = other.url("/x.ts").partition("://")[2]
    with HttpServer(hostile(f"{scheme}://{address}", "redirect", clip)) as server, pytest.raises(SourceError):
        open_source(server.url("/list.m3u8"), options=LIMITS)
    assert other.requests == []


def reach(*addresses: str, **options: Any) -> Reach:
    """Of a source on a public host; every other name leads to `addresses`."""

    def resolve(host: str, port: int, **_options: object) -> list[Any]:
        found = ("93.184.215.14",) if host == "own.test" else addresses or (host,)
        return [(None, None, None, "", (one, port)) for one in found]

    return Reach("http://own.test/", {}, open_timeout_s=1, read_timeout_s=1, resolve=resolve, **options)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%lo", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1",
     "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:c0a8:101::1",
     "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:db8::1",
     "64:ff9b:1::7f00:1", "::ffff:0:7f00:1", "4000::1", "5f00::1", "3fff::1", "192.88.99.1", "64:ff9b::c058:6301"],
)  # fmt: skip
def test_a_private_address_is_reached_under_no_name(address: str) -> None:
    for found in ((address,), ("93.184.215.14", address)):
        with pytest.raises(SourceError, match=r"names http://far\.test/x\.ts, which has a private address"):
            reach(*found).check("http://far.test/x.ts")
    reach(address, private=True).check("http://far.test/x.ts")
    assert not is_public(address.partition("%")[0])


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:220:1::1", "64:ff9b::5db8:d70e", "::ffff:8.8.8.8"])
def test_the_internet_is_reached(address: str) -> None:
    parts, connected = reach(address).check("https://far.test/x.ts?a=b")
    assert (parts.hostname, connected) == ("far.test", [address])
    assert reach(address).check("http://far.test/a b/\u00fc.ts")[1] == [address]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1\t/x", "http://a b/", "http://own.test\\@127.0.0.1/", "http:///x", "http:x", "//127.0.0.1/x",
     "http://own.test:99999/", "http://[::1", "file:///etc/passwd", "HTTP+x://a/", "data:,x", "http://ex\u00e4mple/"],
)  # fmt: skip
def test_what_is_no_plain_web_address_is_refused(url: str) -> None:
    with pytest.raises(SourceError, match="which "):
        reach("93.184.215.14").check(url)


@pytest.mark.skipif(not hasattr(socket, "inet_aton"), reason="no such spellings there")
@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "[::ffff:7f00:1]"])
def test_the_system_resolves_odd_spellings_for_us(host: str) -> None:
    ours = Reach("http://own.test/", {}, open_timeout_s=1, read_timeout_s=1)
    ours._own = []
    with pytest.raises(SourceError, match="has a private address"):
        ours.check(f"http://{host}:8080/x.ts")


def test_own_address_may_be_private(clip: Path) -> None:
    answers = {
        "/a.ts": Answer(location="/b.ts"),
        "/b.ts": Answer(location="/c.ts"),
        "/c.ts": Answer(clip.read_bytes(), ranges=True),
    }
    with HttpServer(answers) as server:
        source = open_network(server.url("/a.ts"))
        assert source.info.name == server.url("/a.ts")
        assert numbers(source) == list(range(10))


def test_own_addresses_are_looked_up_before_a_server_says_anything() -> None:
    found = ["93.184.215.14"]

    def ours() -> Reach:
        def resolve(_host: str, port: int, **_options: object) -> list[Any]:
            return [(None, None, None, "", (one, port)) for one in found]

        return Reach("http://own.test:8080/", {}, open_timeout_s=1, read_timeout_s=1, resolve=resolve)

    rebound, found[:] = ours(), ["127.0.0.1"]
    with pytest.raises(SourceError, match="has a private address"):
        rebound.check("http://own.test:8080/x.ts")
    home, found[:] = ours(), ["10.0.0.1"]
    assert home.check("http://own.test:8080/x.ts")[1] == ["127.0.0.1"]
    found[:] = ["93.184.215.14", "127.0.0.1"]
    both = ours()
    assert both.check("http://own.test:8080/x.ts")[1] == ["93.184.215.14"]
    found[:] = ["127.0.0.1"]
    with pytest.raises(SourceError, match="has a private address"):
        both.check("http://127.0.0.1:8080/x.ts")


@pytest.mark.parametrize("through_proxy", [False, True])
def test_a_name_may_have_an_address_that_does_not_answer(
    through_proxy: bool, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = socket.getaddrinfo

    def resolve(host: str, port: Any, *rest: Any, **more: Any) -> Any:
        first = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))] * (host == "localhost")
        return first + system("127.0.0.1" if host == "localhost" else host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    if through_proxy:  # which is not there, but for others than this host only
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "localhost")
    answers = {
        "/a": Answer(location="/list.m3u8"),
        "/list.m3u8": Answer(playlist("/clip.ts"), kind=KIND),
        "/clip.ts": Answer(clip.read_bytes()),
    }
    with HttpServer(answers) as server:
        assert numbers(open_network(server.url("/a").replace("127.0.0.1", "localhost"))) == list(range(10))


@pytest.mark.parametrize(
    ("own", "named", "is_told"),
    [("https://a.test/", "https://a.test/x.ts", True), ("http://a.test/", "https://a.test/x.ts", True),
     ("https://a.test/", "http://a.test/x.ts", False), ("https://a.test/", "http://a.test:443/x.ts", False),
     ("https://a.test/", "https://a.test:8443/x.ts", False), ("http://a.test:80/", "http://a.test/x.ts", True)],
)  # fmt: skip
def test_secrets_stay_with_the_own_port_and_are_not_sent_in_clear(own: str, named: str, is_told: bool) -> None:
    def resolve(_host: str, port: int, **_options: object) -> list[Any]:
        return [(None, None, None, "", ("93.184.215.14", port))]

    given = {"headers": "Authorization: s3cret\r\n", "cookies": "id=s3cret"}
    ours = Reach(own, given, open_timeout_s=1, read_timeout_s=1, resolve=resolve)
    assert ("s3cret" in str(ours._pinned(named)[1])) is is_told


def test_a_playlist_is_followed_through_redirects_and_past_missing_variants(clip: Path) -> None:
    master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nmissing.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nmedia.m3u8\n"
    answers = {
        "/list.m3u8": Answer(location="/x/list.m3u8"),
        "/x/list.m3u8": Answer(master.encode(), kind=KIND),
        "/x/media.m3u8": Answer(location="/y/media.m3u8"),
        "/y/media.m3u8": Answer(playlist("clip.ts"), kind=KIND),
        "/y/clip.ts": Answer(location="/z/clip.ts"),
        "/z/clip.ts": Answer(clip.read_bytes()),
    }
    with HttpServer(answers) as server:
        assert numbers(open_network(server.url("/list.m3u8"))) == list(range(10))


def test_encrypted_segments_and_parts_of_files_are_read(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(range(16)))
    (tmp_path / "key_info").write_text(f"/key\n{tmp_path / 'key'}\n{'0' * 32}\n")
    options = {"hls_key_info_file": str(tmp_path / "key_info"), "hls_list_size": "0"}
    with (
        open_input(str(clip)) as plain,
        av.open(str(tmp_path / "e.m3u8"), "w", format="hls", container_options=options) as output,
    ):
        track = output.add_stream_from_template(plain.streams.video[0])
        for packet in plain.demux():
            if packet.size:
                packet.stream = track
                output.mux(packet)
    written = {f"/{path.name}": Answer(path.read_bytes()) for path in tmp_path.iterdir()}
    size = clip.stat().st_size
    answers = written | {
        "/part.m3u8": Answer(playlist("/all.ts", tags=f"#EXT-X-BYTERANGE:{size}@188\n"), kind=KIND),
        "/all.ts": Answer(bytes(188) + clip.read_bytes() + bytes(188), ranges=True),
    }
    assert b"METHOD=AES-128" in written["/e.m3u8"].body
    with HttpServer(answers) as server:
        for name in ("/e.m3u8", "/part.m3u8"):
            assert numbers(open_network(server.url(name))) == list(range(10)), name
        assert f"bytes=188-{size + 187}" in [asked for path, asked in server.requests if path == "/all.ts"]


def test_secrets_stay_with_the_own_host_and_another_one_is_pinned(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other host's name is only known to the check: FFmpeg must use the address that was checked."""
    system = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        return system("127.0.0.1" if host == "far.test" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    given = {"headers": "Authorization: Bearer s3cret", "cookies": "id=s3cret; path=/", "user_agent": "me/1"}
    with HttpServer({"/clip.ts": Answer(clip.read_bytes())}) as far:
        port = far.url("").rpartition(":")[2]
        with HttpServer({"/own.ts": Answer(location=f"http://far.test:{port}/clip.ts")}) as server:
            with pytest.raises(SourceError, match=r"far\.test.*private address.*add --input-option reach=private"):
                open_network(server.url("/own.ts"), input_options=given)
            source = open_network(server.url("/own.ts"), input_options=given | {"reach": "private"})
            assert numbers(source) == list(range(10))
    assert "s3cret" in str(server.headers[-1])
    assert far.headers[0]["host"] == f"far.test:{port}"
    assert far.headers[0]["user-agent"] == "me/1"
    assert "s3cret" not in str(far.headers)


# --- limits ---


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"#EXT-X-STREAM-INF:BANDWIDTH=1\nb.m3u8\n" * (MOST_PLAYLISTS + 1), "names more than 200 other playlists"),
        (b"#EXTINF:1,\ns\n" * (MOST_SEGMENTS + 1), "names more than 100 000 segments"),
        (b'#EXT-X-MAP:URI="a"\n' * (MOST_SEGMENTS + 1), "names more than 100 000 segments"),
        (b'#EXT-X-KEY:METHOD=AES-128,URI="%b"\n' % (b"k" * 4000) + b"#EXTINF:1,\ns\n" * 20_000, "more than 64 MiB"),
        (b"#EXTINF:1,\ns.ts\n" + bytes(MOST_BYTES), "is longer than 8 MiB"),
        (b"#EXT-X-STREAM-INF:BANDWIDTH=1\nlist.m3u8\n", "name each other in a circle"),
    ],
)
def test_a_playlist_has_limits(content: bytes, says: str) -> None:
    body = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n" + content
    with HttpServer({"/list.m3u8": Answer(body, kind=KIND)}) as server, pytest.raises(SourceError, match=says):
        open_network(server.url("/list.m3u8"), open_timeout_s=20)


def test_the_length_of_a_base_counts_for_each_segment_of_all_playlists() -> None:
    limits, base = PlaylistLimits("list"), f"http://a.test/{'x' * 1499}/"
    content = b"#EXTM3U\n" + b"#EXTINF:1,\ns\n" * 20_000
    for _ in range(3):  # a live one replaces itself
        assert limits.checked(f"{base}a.m3u8", content, is_opening=False) == content
    assert limits.checked("a.m3u8", content, is_opening=True, base=base.replace("x", "")) == content
    limits.checked("b.m3u8", content, is_opening=True, base=base)
    with pytest.raises(SourceError, match="names addresses that take more than 64 MiB"):
        limits.checked("c.m3u8", content, is_opening=True, base=base)


def test_addresses_that_are_none_or_not_utf8(clip: Path) -> None:
    master = playlist("").replace(b"#EXTINF:0.4,\n", b"#EXT-X-STREAM-INF:BANDWIDTH=1\nmedia.m3u8")
    answers = {
        "/redirect": Answer(location="http://["),
        "/list.m3u8": Answer(master, kind=KIND),
        "/media.m3u8": Answer(location="/x/media.m3u8"),
        "/x/media.m3u8": Answer(playlist("http://["), kind=KIND),
        "/latin.m3u8": Answer(playlist("\u00e9.ts").decode().encode("latin-1"), kind=KIND),
        "/%e9.ts": Answer(clip.read_bytes()),
    }
    with HttpServer(answers) as server:
        with pytest.raises(SourceError, match=r"names http://\[, which is not a valid URL"):
            open_network(server.url("/redirect"))
        with pytest.raises(SourceError, match="its playlist names what is not a valid URL"):
            open_network(server.url("/list.m3u8"))
        assert numbers(open_network(server.url("/latin.m3u8"))) == list(range(10))


def test_a_redirect_may_have_blanks_in_its_path(clip: Path) -> None:
    answers = {"/a.ts": Answer(location="/x%20y/b.ts"), "/x%20y/b.ts": Answer(clip.read_bytes())}
    with HttpServer(answers) as server:
        assert numbers(open_network(server.url("/a.ts"))) == list(range(10))


@pytest.mark.parametrize("suffix", ["ts", "jpg"])
def test_redirects_in_a_circle_end(suffix: str) -> None:
    path = f"/a.{suffix}"
    with HttpServer({path: Answer(location=path)}) as server:
        with pytest.raises(SourceError, match=f"redirects more than {MOST_REDIRECTS} times"):
            open_source(server.url(path), options=LIMITS)
        assert len(server.requests) <= 2 * (MOST_REDIRECTS + 1)


def test_a_redirect_that_drips_ends_at_the_limit_of_opening() -> None:
    def redirect(connection: socket.socket, _stopped: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def drip(connection: socket.socket, stopped: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 302 Found\r\nX: ")
        while not stopped.wait(0.02):
            connection.sendall(b"x")

    with tcp_server(redirect, drip) as port, pytest.raises(SourceError, match=r"no data for 0\.4 s"):
        open_network(f"http://127.0.0.1:{port}/a", open_timeout_s=0.4)


def test_a_redirect_that_drips_ends_after_opening_too() -> None:
    def drip(connection: socket.socket, stopped: threading.Event) -> None:
        connection.recv(4096)
        while not stopped.wait(0.02):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    stops_at_s = time.monotonic() + WAIT_S  # without the limit, the wait would have no end

    def clock() -> float:
        assert time.monotonic() < stops_at_s
        return time.monotonic()

    with tcp_server(drip) as port:
        ours = Reach(f"http://127.0.0.1:{port}/", {}, open_timeout_s=1, read_timeout_s=0.2, clock=clock)
        ours.opened()
        with pytest.raises(TimeoutError):
            ours._location(ours.url)


def test_a_segment_that_drips_ends_at_the_limit_of_a_wait(clip: Path) -> None:
    def drops() -> Iterator[bytes]:
        while True:
            yield b"\0"

    answers = {"/list.m3u8": Answer(playlist("/a.ts"), kind=KIND), "/a.ts": Answer(endless=drops)}
    with HttpServer(answers) as server, pytest.raises(SourceError, match=r"no data for 0\.4 s"):
        open_network(server.url("/list.m3u8"), open_timeout_s=0.4, read_timeout_s=0.2)


@pytest.mark.parametrize("claims", [b"Content-Length: 2147483647\r\n", b""])
def test_a_camera_that_claims_a_huge_picture_is_ended(monkeypatch: pytest.MonkeyPatch, claims: bytes) -> None:
    monkeypatch.setattr(reaching, "MOST_BYTES_PER_PACKET", 1 << 20)

    def parts() -> Iterator[bytes]:
        yield b"--frame\r\nContent-Type: image/jpeg\r\n" + claims + b"\r\n\xff\xd8\xff"
        while True:
            yield b"z" * (1 << 16)

    answer = Answer(kind="multipart/x-mixed-replace; boundary=frame", endless=parts)
    with HttpServer({"/cam": answer}) as server, pytest.raises(SourceError, match="1 MiB that hold no whole picture"):
        open_network(server.url("/cam"))

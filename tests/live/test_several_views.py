"""Several sources in one window and on one page: which image is where, and whom a key or a command reaches."""

import json
import re
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from stream.errors import SinkError
from stream.frames import RgbImage, SourceInfo, SourceKind
from stream.live.address import parse_address
from stream.live.browser import Page, TileSink
from stream.live.grid import Grid, Tile, TileWindowSink
from stream.live.preview import Preview
from stream.live.server import Feed
from stream.media import cv2
from stream.metrics import Metrics
from stream.render.layout import Layout
from stream.render.range import EmaRange
from stream.render.renderer import Renderer
from tests.support.fakes import depth_of
from tests.support.fakes import frame as scripted_frame
from tests.support.live_page import WAIT_S
from tests.support.waiting import until

SIZE = (24, 32)
INFO = SourceInfo(
    name="cam:0", size=SIZE, is_live=True, time_base=Fraction(1, 1000), rate=None, frame_count=None,
    kind=SourceKind.CAMERA,
)  # fmt: skip
LEVELS = (40, 90, 140, 190)
"""The gray of each source's frames."""


def preview(folder: Path, *, writes_text: bool = False) -> Preview:
    renderer = Renderer(layout=Layout.SIDE, colormap="inferno", range_policy=EmaRange())
    made = Preview(renderer, folder=folder, writes_text=writes_text)
    made.metrics = Metrics()
    return made


class FakeWindow:
    def __init__(self, title: str, size: tuple[int, int]) -> None:
        self.title, self.size = title, size
        self.shown: list[RgbImage] = []
        self.keys: list[str] = []
        self.clicks: list[tuple[int, int]] = []
        self.is_lost = False
        self.visible, self.closed = True, 0

    def show(self, image: RgbImage) -> bool:
        self.shown.append(image.copy())
        return True

    def poll_key(self) -> int:
        if self.is_lost:
            raise SinkError("the display was lost", where="preview")
        return ord(self.keys.pop(0)) if self.keys else -1

    def poll_clicks(self) -> list[tuple[int, int]]:
        clicks, self.clicks = self.clicks, []
        return clicks

    def is_visible(self) -> bool:
        return self.visible

    def close(self) -> None:
        self.closed += 1


class Windows:
    """A grid with its sinks, fed by hand."""

    def __init__(self, folder: Path, count: int, *, is_only_output: bool = True) -> None:
        self.changed = threading.Event()
        self.tiles = [Tile(f"pattern:{number}", self.changed) for number in range(count)]
        self.previews = [preview(folder) for _ in range(count)]
        self.sinks = [TileWindowSink(tile, controls=one) for tile, one in zip(self.tiles, self.previews, strict=True)]
        self.windows: list[FakeWindow] = []
        self.grid = Grid(self.tiles, make_window=self._make, is_only_output=is_only_output)
        self.grid.open()
        for sink in self.sinks:
            sink.open(INFO, SIZE)

    def _make(self, title: str, size: tuple[int, int]) -> FakeWindow:
        self.windows.append(FakeWindow(title, size))
        return self.windows[-1]

    @property
    def window(self) -> FakeWindow:
        return self.windows[-1]

    def feed(self, number: int) -> None:
        shown = scripted_frame(LEVELS[number])
        self.sinks[number].write(shown, depth_of(shown), shown.rgb)
        self.sinks[number].poll()

    def poll(self) -> None:
        self.grid.poll()
        for sink in self.sinks:
            sink.poll()
        self.grid.poll()

    def level(self, number: int) -> float:
        """The gray in the left half of a tile's image, as the window shows it."""
        height, width = self.grid._cell_hw
        row, column = divmod(number, self.grid._columns)
        x, y = column * width + width // 8, row * height + height // 2
        return float(self.window.shown[-1][y : y + 8, x : x + 8].mean())


def test_each_source_is_in_its_own_tile(tmp_path: Path) -> None:
    made = Windows(tmp_path, 3)
    assert made.window.size == (720, 1280)
    for number in (2, 0, 1):
        made.feed(number)
    assert made.changed.is_set()
    made.poll()
    assert [round(made.level(number)) for number in range(3)] == [LEVELS[0], LEVELS[1], LEVELS[2]]
    drawn = len(made.window.shown)
    made.poll()
    assert len(made.window.shown) == drawn, "nothing has changed"
    before = [made.level(number) for number in (0, 2)]
    made.sinks[1].keep_partial("the camera is gone")
    made.poll()
    assert made.level(1) < LEVELS[1] / 2, "dimmed"
    assert [made.level(number) for number in (0, 2)] == before
    assert made.tiles[1].status == "the camera is gone"
    made.sinks[1].finish()
    assert made.tiles[1].status == "the camera is gone", "the first reason stays"


@pytest.mark.parametrize("count", [1, 2, 5, 9, 16])
def test_a_grid_fits_on_a_screen(count: int, tmp_path: Path) -> None:
    height, width = Windows(tmp_path, count).window.size
    assert height <= 1080
    assert width <= 1920


def test_keys_reach_all_sources_or_the_chosen_one(tmp_path: Path) -> None:
    made = Windows(tmp_path, 3)
    for number in range(3):
        made.feed(number)

    def layouts() -> list[str]:
        return [one.renderer.layout.value for one in made.previews]

    made.window.keys = ["l"]
    made.poll()
    assert layouts() == ["depth"] * 3
    made.window.keys = ["2", "l"]
    made.poll()
    assert layouts() == ["depth", "overlay", "depth"]
    made.window.keys = ["9", "0", " "]
    made.poll()
    assert [one.frozen for one in made.previews] == [True] * 3, "there is no ninth, and 0 means all"
    made.window.keys = ["q"]
    made.poll()
    assert made.grid.wants_stop


def test_a_click_chooses_a_tile_and_shows_the_depth_there(tmp_path: Path) -> None:
    made = Windows(tmp_path, 4)
    for number in range(4):
        made.feed(number)
    made.poll()
    height, width = made.grid._cell_hw
    made.window.clicks = [(width + width // 8, height + height // 2)]
    made.poll()
    assert [one.depth_at_point() is not None for one in made.previews] == [False, False, False, True]
    ((x, y), _) = made.previews[3]._view.points_px()
    scale = width / made.previews[3].output_size(SIZE)[1]
    assert x == int(width // 8 / scale)
    assert abs(y - SIZE[0] / 2) <= 3, "the title takes a few lines"
    made.window.keys = [" "]
    made.poll()
    assert [one.frozen for one in made.previews] == [False, False, False, True]


@pytest.mark.parametrize("is_only_output", [True, False])
def test_a_lost_display_ends_the_run_only_if_there_is_no_other_output(is_only_output: bool, tmp_path: Path) -> None:
    made = Windows(tmp_path, 2, is_only_output=is_only_output)
    made.window.is_lost = True
    if is_only_output:
        with pytest.raises(SinkError, match="the display was lost"):
            made.poll()
        return
    made.poll()
    made.poll()
    assert made.grid.note == "preview: the display was lost; the run goes on without its window"
    assert made.window.closed == 1


class Pages:
    """A page with a tile for each source, fed by hand."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.previews = [preview(folder) for _ in names]
        self.sinks = [TileSink(controls=one, name=name) for one, name in zip(self.previews, names, strict=True)]
        self.page = Page(parse_address("127.0.0.1:0"), say=lambda _line: None)
        self.page.open(Feed(), [sink.feed for sink in self.sinks])
        for sink in self.sinks:
            sink.open(INFO, SIZE)
        self.client = httpx.Client(base_url=self.page.url, timeout=WAIT_S, trust_env=False)

    def feed(self, number: int) -> None:
        shown = scripted_frame(LEVELS[number])
        self.sinks[number].write(shown, depth_of(shown), shown.rgb)
        self.poll()

    def poll(self) -> None:
        for sink in self.sinks:
            sink.poll()

    def state(self) -> dict[str, Any]:
        with self.client.stream("GET", "events") as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    return dict(json.loads(line[6:]))
        raise AssertionError("no state")

    def command(self, **content: object) -> int:
        status = self.client.post("command", json=content).status_code
        self.poll()
        return status


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Pages]:
    made = Pages(tmp_path, ["pattern:a", "rtsp://host/<b>", "cam:0"])
    yield made
    made.page.close("the end")
    made.client.close()


PART = re.compile(rb"Content-Length: (\d+)\r\nX-Tile: (\d+)\r\n\r\n")


def test_one_answer_carries_the_images_of_all_tiles(pages: Pages) -> None:
    for number in range(3):
        pages.feed(number)
    until(lambda: all(sink.feed.newest.number for sink in pages.sinks), "the first images")
    got, data = dict[int, float](), b""
    with pages.client.stream("GET", "pictures") as answer:
        for chunk in answer.iter_bytes():
            data += chunk
            for found in PART.finditer(data):
                jpeg = data[found.end() : found.end() + int(found[1])]
                if len(jpeg) == int(found[1]):
                    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
                    got[int(found[2])] = float(image[:, : SIZE[1]].mean())
            if len(got) == 3:
                break
    assert {number: round(level / 10) for number, level in got.items()} == {0: 4, 1: 9, 2: 14}


def test_no_tile_is_starved_by_one_that_changes_all_the_time(pages: Pages) -> None:
    for number in range(3):
        pages.feed(number)
    until(lambda: all(sink.feed.newest.number for sink in pages.sinks), "the first images")
    tiles, data = list[int](), b""
    with pages.client.stream("GET", "pictures") as answer:
        for chunk in answer.iter_bytes():
            data += chunk
            tiles = [int(found[2]) for found in PART.finditer(data)]
            for _ in range(3):
                pages.feed(0)
            if len(tiles) >= 3 and pages.sinks[2].feed.newest.number == 1:
                pages.feed(2)
            if tiles.count(2) > 1 or len(tiles) > 300:
                break
    assert sorted(tiles[:3]) == [0, 1, 2]
    assert tiles.count(2) == 2


def test_a_command_reaches_one_tile_or_all(pages: Pages) -> None:
    for number in range(3):
        pages.feed(number)
    assert pages.command(name="colormap", value="gray", tile=1) == 202
    assert [tile["colormap"] for tile in pages.state()["tiles"]] == ["inferno", "gray", "inferno"]
    assert pages.command(name="layout", value="depth", tile=None) == 202
    assert pages.command(name="freeze", value=True) == 202
    assert [(tile["layout"], tile["frozen"]) for tile in pages.state()["tiles"]] == [("depth", True)] * 3
    for wrong in (3, -1, "1", True, 1.0, [1]):
        assert pages.command(name="freeze", value=False, tile=wrong) == 400
    assert [tile["frozen"] for tile in pages.state()["tiles"]] == [True] * 3


def test_links_name_their_tile(pages: Pages) -> None:
    pages.feed(1)
    assert pages.client.get("snapshot.png?tile=1").status_code == 200
    image = cv2.imdecode(np.frombuffer(pages.client.get("snapshot.png?tile=1").content, np.uint8), cv2.IMREAD_COLOR)
    assert abs(float(image[:, : SIZE[1]].mean()) - LEVELS[1]) < 2
    for wrong in ("snapshot.png", "snapshot.png?tile=0", "snapshot.npy?tile=7", "snapshot.png?tile=x", "recordings/0"):
        assert pages.client.get(wrong).status_code == 404


def test_a_tile_that_has_ended_says_so_and_the_page_goes_on(pages: Pages) -> None:
    pages.feed(0)
    pages.sinks[0].abort(RuntimeError("no route to host"))
    pages.feed(1)
    state = pages.state()
    assert [tile["ended"] for tile in state["tiles"]] == ["no route to host", "", ""]
    assert state["ended"] == ""
    assert [tile["name"] for tile in state["tiles"]] == ["pattern:a", "rtsp://host/<b>", "cam:0"]
    pages.page.close("all have ended")
    with pytest.raises(httpx.ConnectError):
        pages.client.get("")


def test_the_page_has_tiles_in_the_place_of_the_picture(pages: Pages) -> None:
    text = pages.client.get("").text
    assert '<section id="tiles"' in text
    assert 'id="picture"' not in text
    assert "<b>" not in text, "the names come with the state"

"""The page as people use it: the command, a real headless Chromium, clicks and keys."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stream.media import av
from tests.support.chromium import chromium
from tests.support.paths import REPOSITORY
from tests.support.servers import refused_port
from tests.support.waiting import WAIT_S, until


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "profile") as made:
        yield made


@contextmanager
def serving(folder: Path, *options: str, sources: Sequence[str] = ("pattern:testsrc2",)) -> Iterator[Any]:
    """The command's process, and the address that it tells."""
    command = [sys.executable, "-m", "stream", "run", *sources, "--serve", "127.0.0.1:0", *options]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("DISPLAY", None)
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = ""
            while "watch at" not in line:
                line = process.stderr.readline()
                assert line, "it ended early"
            yield process, line.split()[-1]
        finally:
            process.kill()


class Page:
    """A tab on the page."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.switch_to.new_window("tab")
        browser.get(url)
        self.handle = browser.current_window_handle

    def front(self) -> Any:
        self.browser.switch_to.window(self.handle)
        return self.browser

    def find(self, name: str) -> Any:
        return self.front().find_element("id", name)

    def picture(self) -> np.ndarray:
        """What the picture shows now."""
        png = self.find("picture").screenshot_as_png
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def moves(self) -> bool:
        before = self.picture()
        time.sleep(0.3)
        after = self.picture()
        return before.shape == after.shape and np.abs(before - after).mean() > 0.2

    def tint(self) -> float:
        """How far the means of red, green and blue differ."""
        # A tab that comes to the front loads its picture anew, and is blank until it arrives.
        picture = until(lambda: (p := self.picture()).std() > 5 and [p], "a picture")[0]
        return float(np.ptp(picture.mean((0, 1))))

    def status(self) -> str:
        return str(self.find("status").text)

    def choose(self, name: str, value: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.find(name)).select_by_value(value)


@pytest.mark.slow
def test_people_at_the_page(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path, "--input-size", "64") as (process, url):
        first = Page(browser, url)
        until(lambda: first.status() == "live", "the page to be live")
        until(first.moves, "the picture to move")
        second = Page(browser, url)
        until(second.moves, "the picture to move for a second viewer")

        assert not first.find("model").is_displayed(), "there is one model"
        wide = first.picture().shape
        first.choose("layout", "depth")
        until(lambda: first.picture().shape != wide or first.picture().std() < 80, "another layout")
        until(lambda: second.find("layout").get_attribute("value") == "depth", "the other viewer to see the choice")
        until(lambda: first.tint() > 2, "colours")
        first.choose("colormap", "gray")
        until(lambda: second.tint() < 2, "gray in both")

        first.find("freeze").click()
        until(lambda: second.status() == "frozen", "frozen")
        until(lambda: not second.moves(), "the picture to stand")
        until(lambda: first.status() == "frozen", "the first page, in the background until now, to catch up")
        first.find("freeze").send_keys(" ")  # by keyboard
        until(lambda: second.status() == "live", "live again")

        first.find("record").click()
        until(lambda: first.find("record").get_attribute("aria-pressed") == "true", "a recording")
        time.sleep(1.5)
        first.find("record").click()
        link = until(lambda: first.front().find_elements("css selector", "#recordings a"), "its link")[0]
        (file,) = tmp_path.glob("*.mp4")
        assert file.name in link.text
        with av.open(str(file)) as container:
            assert len(list(container.decode(video=0))) > 3

        first.front().refresh()
        until(lambda: first.status() == "live", "the page after a reload")
        until(first.moves, "the picture to move after a reload")
        assert first.find("layout").get_attribute("value") == "depth"

        process.terminate()
        until(lambda: "stopped" in first.status() or "not connected" in first.status(), "word of the end")
        assert process.wait(WAIT_S) == 0
    severe = [
        entry
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE" and "ERR_CONN" not in entry["message"]
    ]
    assert severe == []


class Tiles(Page):
    """A tab on the page of several sources."""

    def tile(self, number: int) -> Any:
        return self.front().find_elements("css selector", "#tiles figure")[number]

    def picture_of(self, number: int) -> np.ndarray:
        image = self.tile(number).find_element("tag name", "img")
        # An element's screenshot has whatever is at its place in the viewport, where the page is scrolled past it.
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        png = image.screenshot_as_png
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def tile_moves(self, number: int) -> bool:
        before = self.picture_of(number)
        time.sleep(0.4)
        return bool(np.abs(self.picture_of(number) - before).mean() > 0.2)

    def colours(self, number: int) -> float:
        """How far red, green and blue differ in the right half, which shows the depth."""
        picture = self.picture_of(number)
        depth = picture[:, picture.shape[1] * 6 // 10 :]
        return float(np.abs(depth - depth.mean(2, keepdims=True)).mean())

    def words(self, number: int) -> str:
        return str(self.tile(number).find_element("css selector", "[role=status]").text)


@pytest.mark.slow
def test_people_at_the_page_of_several_sources(browser: Any, tmp_path: Path) -> None:
    sources = ["pattern:smptebars", "pattern:testsrc2", f"tcp://127.0.0.1:{refused_port()}", "pattern:testsrc"]
    with serving(tmp_path, "--camera-fps", "10", sources=sources) as (process, url):
        page = Tiles(browser, url)
        until(lambda: page.status() == "3 of 4 sources live", "three sources to be live")
        names = [page.tile(number).find_element("tag name", "strong").text for number in range(4)]
        assert names == sources
        for number in (1, 3):
            until(lambda number=number: page.tile_moves(number), f"tile {number} to move")
            assert page.words(number) == "live"
            label = page.tile(number).find_element("tag name", "img").get_attribute("alt")
            assert label.startswith(sources[number])
        assert "Connection refused" in page.words(2)
        gone = page.tile(2).find_element("tag name", "img")
        assert gone.value_of_css_property("opacity") == "0", "no broken image"
        browser.execute_script("scrollTo(0, 0)")
        assert browser.execute_script(
            "return document.getElementById('controls').getBoundingClientRect().bottom <= innerHeight"
        )

        before = page.colours(1)
        page.choose("colormap", "gray")
        until(lambda: max(page.colours(number) for number in (0, 1, 3)) < before / 4, "gray in all")
        button = page.tile(1).find_element("tag name", "button")
        button.send_keys(" ")  # by keyboard
        until(lambda: page.find("tile").get_attribute("value") == "1", "the tile to be chosen")
        assert button.get_attribute("aria-pressed") == "true"
        page.choose("colormap", "inferno")
        until(lambda: page.words(1) == "colormap inferno", "the chosen one to say so")
        until(lambda: page.colours(1) > before / 2, "colours in the chosen one")
        assert max(page.colours(number) for number in (0, 3)) < before / 4, "the others stay gray"
        until(lambda: page.tile_moves(1), "it to go on")
        assert "inferno" not in page.words(0) + page.words(3)
        page.find("freeze").click()
        until(lambda: page.words(1) == "frozen", "one to freeze")
        until(lambda: not page.tile_moves(1), "one to stand")
        assert page.tile_moves(3)

        page.find("record").click()
        until(lambda: page.find("record").get_attribute("aria-pressed") == "true", "a recording")
        time.sleep(1.5)
        page.find("record").click()
        link = until(lambda: page.front().find_elements("css selector", "#recordings a"), "its link")[0]
        (file,) = tmp_path.glob("*.mp4")
        assert "testsrc2" in file.name
        assert link.get_attribute("href").endswith("recordings/0?tile=1")
        assert page.find("save-picture").get_attribute("href").endswith("snapshot.png?tile=1")

        page.choose("tile", "")
        until(lambda: button.get_attribute("aria-pressed") == "false", "all to be chosen")
        assert not page.find("save-picture").is_displayed()
        process.terminate()
        until(lambda: "stopped" in page.status() or "not connected" in page.status(), "word of the end")
        assert process.wait(WAIT_S) == 3
    severe = [
        one for one in browser.get_log("browser") if one["level"] == "SEVERE" and "ERR_CONN" not in one["message"]
    ]
    assert severe == []

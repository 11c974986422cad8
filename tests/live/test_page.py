"""The page as people use it: the command, a real headless Chromium, clicks and keys."""

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stream.media import av
from tests.support.paths import REPOSITORY

WAIT_S = 60.0
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
]  # fmt: skip


def until(found: Callable[[], Any], what: str) -> Any:
    give_up_s = time.monotonic() + WAIT_S
    while time.monotonic() < give_up_s:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is needed (apt-get install chromium chromium-driver)")
        pytest.skip("needs Chromium and its driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    made = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield made
    finally:
        made.quit()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command and the address that it tells."""
    command = [sys.executable, "-m", "stream", "run", "pattern:testsrc2", "--serve", "127.0.0.1:0", *options]
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


def test_people_at_the_page(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path) as (process, url):
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

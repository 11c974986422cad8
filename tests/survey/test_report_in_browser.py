"""The page of a survey as people use it: in a real headless Chromium, from the disk, by mouse, by keys and on paper."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stream.survey.record import Survey
from tests.support.chromium import chromium
from tests.support.survey_reports import MODELS, ODD_NAMES, write_report
from tests.support.waiting import until

pytestmark = pytest.mark.slow

CONTRASTS = """  // by WCAG 2, of every text that is seen: the lowest for each kind of element
const channels = (colour) => {
  const found = colour.match(/[\\d.]+/g).map(Number);
  return found.length < 4 ? [...found, 1] : found;
};
const over = (top, under) => top.slice(0, 3).map((value, i) => value * top[3] + under[i] * (1 - top[3]));
const linear = (v) => v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = (element) => { const layers = [];
  for (let at = element; at; at = at.parentElement) layers.unshift(channels(getComputedStyle(at).backgroundColor));
  return layers.reduce((under, layer) => over(layer, under), arguments[0]); };
const seen = new Map();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility({ visibilityProperty: true })
      || element.closest("script, style, template, svg, .unseen")) continue;
  const back = behind(element), ink = over(channels(getComputedStyle(element).color), back);
  const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
  const contrast = (a + 0.05) / (b + 0.05), key = element.tagName + "." + element.className;
  if (!seen.has(key) || seen.get(key) > contrast) seen.set(key, contrast);
}
return [...seen];
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a report #1 ü%")


@pytest.fixture(scope="module")
def survey(folder: Path) -> Survey:
    return write_report(folder, size_hw=(192, 256), is_complete=False, stopped_by="interrupted")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture
def browser(program: Any, survey: Survey, folder: Path) -> Iterator[Any]:
    """On the page as it is when it has just been opened."""
    program.get((folder / "report.html").as_uri())
    yield program
    for name in ("setScriptExecutionDisabled", "clearDeviceMetricsOverride", "setEmulatedMedia"):
        program.execute_cdp_cmd(f"Emulation.{name}", {"value": False} if "Script" in name else {})


def emulate(browser: Any, *, width: int = 1280, scheme: str = "light", media: str = "") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def pixels(element: Any) -> np.ndarray:
    """What an element shows, once Chromium has drawn it in full: it scales pictures roughly at first."""
    taken = [element.screenshot_as_png]

    def settled() -> bool:
        taken.append(element.screenshot_as_png)
        return bool(taken[-1] == taken[-2])

    until(settled, "a picture that stays")
    return np.asarray(Image.open(io.BytesIO(taken[-1])).convert("RGB")).astype(int)


def find(browser: Any, selector: str, photo: int = 1) -> Any:
    found = browser.find_element("css selector", f"#photo-{photo} {selector}")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
    return found


def loaded(browser: Any, selector: str, photo: int = 1) -> Any:
    """An element whose images have arrived."""
    found = find(browser, selector, photo)
    ready = "return [...arguments[0].querySelectorAll('img')].every((i) => i.complete && i.naturalWidth)"
    until(lambda: browser.execute_script(ready, found), f"the pictures of {selector}")
    return found


def zooms(browser: Any, photo: int = 1) -> list[list[float]]:
    """Of each picture of a photo: the factor, and where what is visible begins, in shares of the picture."""
    found: list[list[float]] = browser.execute_script(
        """return [...document.querySelectorAll(`#photo-${arguments[0]} .canvas`)].filter((c) => c.checkVisibility())
        .map((canvas) => {
          const a = canvas.getBoundingClientRect(), b = canvas.closest('.view').getBoundingClientRect();
          return [a.width / b.width, (b.left - a.left) / a.width, (b.top - a.top) / a.height];
        })""",
        photo,
    )
    return found


def test_a_page_opened_from_the_disk_shows_all_and_has_nothing_to_complain_of(browser: Any, survey: Survey) -> None:
    browser.execute_script(
        "document.querySelectorAll('details').forEach((d) => { d.open = true; });"
        "document.querySelectorAll('img').forEach((i) => { i.loading = 'eager'; });"
    )
    shown = "return [...document.images].filter((i) => i.complete && i.naturalWidth).length"
    pictures = sum(len(photo.pictures) for photo in survey.photos)
    pairs = 3 * len(survey.photos)  # left, right and their difference
    until(lambda: browser.execute_script(shown) == pictures + pairs, "all pictures")
    assert browser.get_log("browser") == []


def test_the_slider_goes_by_keyboard_from_one_picture_to_the_other(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    Select(find(browser, "select.left")).select_by_value("photo")
    Select(find(browser, "select.right")).select_by_value(f"depth:{MODELS[0]}")
    view, slider = loaded(browser, ".slide .view"), find(browser, ".slide input")
    assert slider.get_attribute("aria-valuetext") == f"50 % Photo, 50 % {MODELS[0]}"
    slider.send_keys(Keys.END)
    photo = pixels(view)
    slider.send_keys(Keys.HOME)
    depth = pixels(view)
    width = photo.shape[1]
    red = photo[..., 0] - photo[..., 2]
    assert np.abs(photo - depth).mean() > 30, "two different pictures"
    assert red.max() > 100, "the ball in the photo"
    slider.send_keys(Keys.ARROW_RIGHT * 40)
    assert slider.get_attribute("aria-valuetext") == f"40 % Photo, 60 % {MODELS[0]}"
    both = pixels(view)
    at = round(0.4 * width)
    for picture, other, part in ((photo, depth, slice(at - 4)), (depth, photo, slice(at + 4, None))):
        assert np.abs(both - picture)[:, part].mean() < 1, "pixels at edges may be off"
        assert np.abs(both - other)[:, part].mean() > 30


def test_the_difference_is_that_of_the_two_that_are_chosen(browser: Any, survey: Survey) -> None:
    from selenium.webdriver.support.select import Select

    left, right = Select(find(browser, "select.left")), Select(find(browser, "select.right"))
    assert [option.text for option in left.options] == ["Photo", "Truth", *MODELS]
    source = "return document.querySelector('#photo-1 .apart img')?.getAttribute('src')"
    for a, b, key in (
        (f"depth:{MODELS[0]}", f"depth:{MODELS[1]}", f"difference:{MODELS[0]}|{MODELS[1]}"),
        (f"depth:{MODELS[2]}", "truth", f"difference:truth|{MODELS[2]}"),
    ):
        left.select_by_value(a)
        right.select_by_value(b)
        file = survey.photos[0].pictures[key].rpartition("/")[2]
        assert browser.execute_script(f"return decodeURIComponent(({source.removeprefix('return ')}))").endswith(file)
    left.select_by_value("photo")
    assert browser.execute_script(source) is None
    assert "no depth to differ" in find(browser, ".apart figcaption").text


def test_all_pictures_of_a_photo_zoom_and_move_together(browser: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.common.keys import Keys

    def same(factor: float, photo: int = 1) -> list[float]:
        found = np.array(zooms(browser, photo))
        assert len(found) >= 6
        assert np.ptp(found, axis=0).max() < 0.02
        assert found[0, 0] == pytest.approx(factor, rel=0.01)
        return found[0].tolist()

    same(1)
    panes = find(browser, ".panes")
    panes.send_keys("++")
    _, left, top = same(2.25)
    assert left == pytest.approx((1 - 1 / 2.25) / 2, abs=0.02), "about the middle"
    panes.send_keys(Keys.ARROW_RIGHT * 2, Keys.ARROW_UP)
    _, right, upper = same(2.25)
    assert (right - left, top - upper) == pytest.approx((0.2 / 2.25, 0.1 / 2.25), abs=0.02)
    panes.send_keys(Keys.ARROW_RIGHT * 20)
    assert same(2.25)[1] == pytest.approx(1 - 1 / 2.25, abs=0.02), "no farther than the edge"
    panes.send_keys("-")
    same(1.5)
    assert find(browser, "[data-zoom=reset]").text == "150 %"
    find(browser, "[data-zoom=reset]").click()
    same(1)
    assert np.array(zooms(browser, 2))[:, 0].max() < 1.01, "another photo is left alone"

    view = loaded(browser, "[data-key=truth] .view")
    corner = (round(view.size["width"] * 0.3), round(view.size["height"] * 0.3))
    ActionChains(browser).move_to_element_with_offset(view, *corner).click().perform()
    _, left, top = same(2)
    assert (left, top) == pytest.approx((0.4, 0.4), abs=0.02), "what was clicked stays where it was"
    ActionChains(browser).click_and_hold(view).move_by_offset(40, 30).release().perform()
    _, moved, up = same(2)
    assert moved < left - 0.02
    assert up < top - 0.02
    where = ScrollOrigin.from_element(view)
    ActionChains(browser).scroll_from_origin(where, 0, 100).perform()
    same(2 / 1.5)
    find(browser, "[data-zoom=reset]").click()
    ActionChains(browser).key_down(Keys.CONTROL).scroll_from_origin(where, 0, -100).key_up(Keys.CONTROL).perform()
    same(1.5)


def test_the_wheel_scrolls_the_page_until_a_picture_is_zoomed(browser: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    view = loaded(browser, "[data-key=photo] .view")
    before = browser.execute_script("return scrollY")
    ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(view), 0, 200).perform()
    until(lambda: browser.execute_script("return scrollY") > before, "the page to scroll")
    assert zooms(browser)[0][0] == pytest.approx(1)


@pytest.mark.parametrize("has_script", [True, False])
def test_places_are_marked_where_they_are_and_switched_by_finding(
    browser: Any, survey: Survey, has_script: bool
) -> None:
    if not has_script:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        browser.refresh()
    switches = browser.find_elements("css selector", "#photo-1 .switches input")
    assert [switch.is_selected() for switch in switches] == [True, False]
    thin, crisp = (f"#photo-1 .panes > figure:nth-child(1) .mark-{index}" for index in (1, 2))

    def visible(selector: str) -> bool:
        return bool(browser.find_element("css selector", selector).value_of_css_property("display") != "none")

    assert (visible(thin), visible(crisp)) == (True, False)
    find(browser, ".switches label:nth-of-type(2)").click()
    find(browser, ".switches label:nth-of-type(1)").click()
    assert (visible(thin), visible(crisp)) == (False, True)
    assert "drop-shadow" in browser.find_element("css selector", crisp).value_of_css_property("filter")

    place = survey.photos[0].findings["crispness"].numbers[MODELS[1]].places[0]
    figure = loaded(browser, f"figure[data-key='depth:{MODELS[1]}']")
    view, box = figure.find_element("css selector", ".view"), figure.find_element("css selector", ".mark-2 rect")
    left, top = ((box.rect[key] - view.rect[key]) / view.rect[size] for key, size in (("x", "width"), ("y", "height")))
    assert (left, top) == pytest.approx(place.box[:2], abs=0.02)
    code = figure.find_element("css selector", ".mark-2 text").text
    listed = browser.find_elements("css selector", "#photo-1 .places li")
    words = [one.get_attribute("textContent") for one in listed]
    assert f"{code} {MODELS[1]}: {place.text}" in words


@pytest.mark.parametrize(("scheme", "media"), [("light", ""), ("dark", ""), ("light", "print"), ("dark", "print")])
def test_every_text_stands_out(browser: Any, scheme: str, media: str) -> None:
    emulate(browser, scheme=scheme, media=media)
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    is_dark = scheme == "dark" and not media
    paper = [0, 0, 0] if is_dark else [255, 255, 255]
    found = dict(browser.execute_script(CONTRASTS, paper))
    assert len(found) > 20
    assert min(found.values()) >= 4.5, sorted(found.items(), key=lambda one: one[1])[:5]
    back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 200) == is_dark


@pytest.mark.parametrize("width", [320, 360, 390, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser: Any, width: int) -> None:
    emulate(browser, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    too_wide = """return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility()
      && !e.closest('.scrolling, .view, .unseen, .shared') && e.getBoundingClientRect().right > innerWidth + 1)
      .map((e) => e.outerHTML.slice(0, 80))"""
    assert browser.execute_script(too_wide) == []
    for table in browser.find_elements("css selector", ".scrolling"):
        wider = browser.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth + 1", table)
        assert (table.get_attribute("tabindex") == "0") == wider, "what scrolls can be scrolled by keyboard"


def test_the_filter_leaves_the_photos_with_a_name(browser: Any) -> None:
    box = browser.find_element("id", "filter")
    box.send_keys("IMG_0001")
    photos = browser.find_elements("css selector", ".photo")
    assert [photo.is_displayed() for photo in photos] == [False, False, True, False]
    assert browser.find_element("id", "found").text == f"1 of {len(ODD_NAMES)} photos"
    box.clear()
    box.send_keys(" ")
    assert all(photo.is_displayed() for photo in photos)


def test_a_link_to_a_definition_opens_it(browser: Any) -> None:
    entry = browser.find_element("id", "finding-thin")
    assert entry.get_attribute("open") is None
    browser.find_element("css selector", "#summary a[href='#finding-thin']").click()
    until(lambda: entry.get_attribute("open") is not None, "the definition")


def test_on_paper_every_picture_is_printed(browser: Any, survey: Survey) -> None:
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    content = base64.b64decode(printed["data"])
    panes = sum(not key.startswith("difference:") for photo in survey.photos for key in photo.pictures)
    assert content.count(b"/Subtype /Image") >= panes
    assert content.count(b"/Type /Page\n") >= 2


def test_without_a_script_all_is_there(browser: Any, survey: Survey) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.refresh()
    assert not browser.find_element("id", "filter").is_displayed(), "nothing is shown that does not work"
    assert not browser.find_elements("css selector", ".tools, .compare")
    assert len(browser.find_elements("css selector", ".photo table")) == 2 * len(survey.photos)
    details = find(browser, ".differences")
    details.find_element("css selector", "summary").click()
    assert all(image.is_displayed() for image in details.find_elements("css selector", "img"))


def test_a_hundred_photos_load_as_they_come_into_view_and_nothing_jumps(
    program: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("many")
    write_report(folder, [f"DSC_{index:04d}.jpg" for index in range(100)], size_hw=(24, 32))
    program.get((folder / "report.html").as_uri())
    program.execute_script(
        "window.shift = 0; new PerformanceObserver((list) => list.getEntries().forEach((e) => { shift += e.value; }))"
        ".observe({type: 'layout-shift', buffered: true})"
    )
    count = "return [...document.querySelectorAll('.panes img')].filter((i) => i.naturalWidth).length"
    assert program.execute_script(count) < 100
    last = program.find_element("css selector", "#photo-100 [data-key=photo] img")
    program.execute_script("document.getElementById('photo-100').scrollIntoView()")
    until(lambda: program.execute_script("return arguments[0].naturalWidth", last), "the last photo")
    assert program.execute_script(count) < 500
    assert program.execute_script("return shift") < 0.01

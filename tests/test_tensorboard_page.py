"""A run in the real TensorBoard, in a real browser."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import (
    StaleElementReferenceException as StaleElement,
)
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser import browsing, tensorboard
from tests.conftest import Demo

SECONDS = 100.0
"""Until a page shows what it should."""

DRAWN_SECONDS = 30.0
LOADS = 8
"""A chart that is not drawn by then never is: the page is loaded again."""

LAYERS = ("hidden_1", "hidden_2", "classes")


@pytest.fixture
def page(demo: Demo) -> Iterator[str]:
    """Returns the address of a TensorBoard that shows the demo's runs."""
    with tensorboard(demo.logdir) as address:
        yield address


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Returns a headless Chromium that talks to this machine only."""
    size = "window-size=1400,1200"
    with browsing(tmp_path, "disable-quic", size) as driver:
        yield driver


def test_curves_and_findings_are_on_the_page(
    page: str, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    """Loss and norms have curves; the finding is a text that can be read."""
    wait, drawn = (
        WebDriverWait(browser, seconds, ignored_exceptions=[StaleElement])
        for seconds in (SECONDS, DRAWN_SECONDS)
    )
    variables = [f"variable_gradient_norm/digits/{x}/kernel" for x in LAYERS]
    missing = ["loss", "gradient_norm", "metric/accuracy", *variables]
    for _ in range(LOADS):
        if not missing:
            break
        browser.get("about:blank")
        # A search opens all groups that it finds something in.
        search = urlencode({"tagFilter": f"^({'|'.join(missing)})$"})
        browser.get(f"{page}?{search}#timeseries")
        with contextlib.suppress(TimeoutException):
            while missing:
                drawn.until(partial(_has_curve, tag=missing[0]))
                del missing[0]
    assert missing == []
    browser.save_screenshot(str(tmp_path / "timeseries.png"))
    for tab, said in (
        ("text", ("became NaN while the loss was still", "epsilon")),
        ("custom_scalars", ("Does it learn?", "Components of the loss")),
    ):
        browser.get("about:blank")
        browser.get(f"{page}#{tab}")
        wait.until(partial(says, said=said))
        browser.save_screenshot(str(tmp_path / f"{tab}.png"))


def _card(browser: webdriver.Chrome, tag: str) -> WebElement | None:
    """The card of a tag, once it is there."""
    for card in browser.find_elements(By.TAG_NAME, "card-view"):
        names = card.find_elements(By.CSS_SELECTOR, f'.tag[title="{tag}"]')
        if names:
            return card
    return None


def _has_curve(browser: webdriver.Chrome, tag: str) -> bool:
    """Whether a tag's chart has coloured pixels; grid and axes are grey."""
    card = _card(browser, tag)
    if card is None:
        return False
    # TensorBoard draws only what is in view.
    browser.execute_script("arguments[0].scrollIntoView()", card)
    charts = card.find_elements(By.TAG_NAME, "canvas")
    if not charts:
        return False
    with Image.open(io.BytesIO(charts[0].screenshot_as_png)) as image:
        pixels = np.asarray(image.convert("RGB"), np.int64)
    return int((np.ptp(pixels, axis=2) > 16).sum()) > 200


def says(browser: webdriver.Chrome, said: Sequence[str]) -> bool:
    """Whether all these texts are on the page."""
    return all(text in _text(browser) for text in said)


def _text(browser: webdriver.Chrome) -> str:
    """The text that is visible, shadow roots of the page included."""
    script = """
    const texts = [];
    const walk = (node) => {
      if (node.shadowRoot) walk(node.shadowRoot);
      if (node.nodeType === Node.TEXT_NODE) texts.push(node.textContent);
      for (const child of node.childNodes) walk(child);
    };
    walk(document.body);
    return texts.join(" ");
    """
    return str(browser.execute_script(script))

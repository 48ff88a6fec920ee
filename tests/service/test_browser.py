"""The pages in a real browser, of real fits: healthy, NaN, killed, hanging."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from gradwatch.service.runs import Runs
from tests.browser import browsing
from tests.conftest import Demo
from tests.service.test_health import training

SECONDS = 30.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages fetch themselves twice a second, so that a test is not long."""
    monkeypatch.setattr("gradwatch.service.pages._REFRESH", 0.5)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Returns a headless Chromium that knows no host but this machine."""
    alone = "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    size = "window-size=1500,1000"
    with browsing(tmp_path, alone, size, logs=True) as chrome:
        yield chrome


def _until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _text(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def _wait(browser: webdriver.Chrome, said: str) -> None:
    WebDriverWait(browser, SECONDS).until(lambda b: said in _text(b))


def _resize(browser: webdriver.Chrome, width: int, height: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {
            "width": width,
            "height": height,
            "deviceScaleFactor": 1,
            "mobile": width < 600,
        },
    )


def _script(browser: webdriver.Chrome, code: str) -> Any:
    return browser.execute_script(code)


def _afresh(look: Callable[[], None]) -> None:
    """Looks again where the page has fetched itself in the middle of it."""
    for _ in range(5):
        with contextlib.suppress(StaleElementReferenceException):
            return look()
    raise AssertionError("the page does not hold still")


def _rows_are_told_apart(browser: webdriver.Chrome) -> None:
    (gone,) = browser.find_elements(By.CSS_SELECTOR, "tr.lost")
    assert "job" in gone.text
    (bad,) = browser.find_elements(By.CSS_SELECTOR, "tr.failed.nonfinite")
    assert "nonfinite" in bad.text
    assert bad.find_element(By.CSS_SELECTOR, ".nan").text == "NaN"
    path = "return arguments[0].querySelector('path.line').getTotalLength()"
    for row in browser.find_elements(By.CSS_SELECTOR, "table.runs tbody tr"):
        assert float(browser.execute_script(path, row)) > 100


def test_pages_of_real_runs(
    demo: Demo,
    tmp_path: Path,
    serve_runs: Callable[..., str],
    browser: webdriver.Chrome,
) -> None:
    """A healthy run, one of NaN and a killed one are told apart, and drawn."""
    logdir, ahead = tmp_path / "runs", [0.0]
    shutil.copytree(demo.logdir, logdir)
    with training(logdir, hangs_at=-1):
        runs = Runs([logdir], clock=lambda: time.time() + ahead[0])
        _until(lambda: any(s.snapshot["steps"] > 100 for s in _of(runs, "job")))
        url = serve_runs(runs)
        browser.get(f"{url}/")
        assert "training well" in _text(browser)
    ahead[0] = 60.0
    _wait(browser, "lost")  # the page fetches itself
    browser.save_screenshot(str(tmp_path / "fleet.png"))
    _afresh(lambda: _rows_are_told_apart(browser))
    link = "tr.failed.nonfinite a"
    _afresh(lambda: browser.find_element(By.CSS_SELECTOR, link).click())
    _wait(browser, "was not finite")
    browser.save_screenshot(str(tmp_path / "nan.png"))
    said = _text(browser)
    assert "Failed: nonfinite" in said
    assert re.search(r"critical nonfinite_gradient", said)
    assert "epsilon" in said  # the advice
    strips = browser.find_elements(By.CSS_SELECTOR, ".strip")
    assert len(strips) >= 3
    browser.find_element(By.CSS_SELECTOR, ".brand").click()
    _wait(browser, "Needs attention")
    assert browser.get_log("browser") == []  # no policy was violated


def test_refresh_keeps_what_a_reader_does(
    demo: Demo,
    tmp_path: Path,
    serve_runs: Callable[..., str],
    browser: webdriver.Chrome,
) -> None:
    """Scrolled, opened parts stay, numbers change, silence is told."""
    logdir, ahead = tmp_path / "runs", [0.0]
    shutil.copytree(demo.logdir, logdir)
    runs = Runs([logdir], clock=lambda: time.time() + ahead[0])
    url = serve_runs(runs)
    ended = [s.snapshot for s in runs.look() if not s.snapshot["reason"]]
    run = f"/runs/{ended[0]['run']['id']}"
    browser.get(url + run)
    _script(browser, "document.querySelector('#about').open = true")
    _script(browser, "window.scrollTo(0, 300)")
    _script(browser, "document.querySelector('main').dataset.old = 1")
    ahead[0] = 7200.0
    _wait(browser, "2 h ago")
    assert not _script(
        browser, "return document.querySelector('main').dataset.old"
    )
    assert _script(browser, "return window.scrollY") == 300
    assert _script(browser, "return document.querySelector('#about').open")
    # To the browser it is the same whether the service or the network is gone.
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*"]})
    _wait(browser, "No answer from the service")
    assert "2 h ago" in _text(browser)
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    WebDriverWait(browser, SECONDS).until(lambda b: "No answer" not in _text(b))
    for width in (390, 1500):  # a phone, a screen
        _resize(browser, width, 844)
        for path in ("/", run):
            browser.get(url + path)
            wide = _script(browser, "return document.body.scrollWidth")
            assert wide <= width
            browser.save_screenshot(str(tmp_path / f"{width}.png"))
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [feature]}
        )
        ground = "return getComputedStyle(document.body).backgroundColor"
        shade = int(re.findall(r"\d+", _script(browser, ground))[0])
        assert (shade < 128) == (scheme == "dark")


def _of(runs: Runs, name: str) -> list[Any]:
    return [s for s in runs.look() if s.snapshot["run"]["name"] == name]

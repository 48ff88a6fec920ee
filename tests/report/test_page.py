"""Reports of real runs in a real browser, and of a hostile one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from gradwatch import GradWatch, GradWatchError
from gradwatch.records import Autopsy, Beat, Block, Finding, Run, Schema
from gradwatch.report import Report
from gradwatch.reports import Source
from gradwatch.runstate import RunState
from gradwatch.signals import Slot
from gradwatch.sinks.disk import disk_sinks
from gradwatch.strict_json import dumps
from tests.browser import browsing
from tests.conftest import Demo
from tests.models import classifier, fit
from tests.service.test_pages import EVIL, Page


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Returns a headless Chromium that knows no host at all."""
    alone = "host-resolver-rules=MAP * ~NOTFOUND"
    with browsing(tmp_path, alone, "window-size=1300,1000", logs=True) as b:
        b.execute_cdp_cmd("Network.enable", {})
        yield b


def open_report(browser: webdriver.Chrome, run: Path, file: Path) -> str:
    """Opens a run's report; returns its text, and checks what all keep."""
    file.write_text(Report(run).html())
    browser.get(file.as_uri())
    assert browser.get_log("browser") == []
    asked = "return performance.getEntriesByType('resource').map(r => r.name)"
    assert browser.execute_script(asked) == []
    assert browser.find_elements(By.CSS_SELECTOR, "script, link, img") == []
    return browser.find_element(By.TAG_NAME, "body").text


def resize(browser: webdriver.Chrome, width: int, scheme: str) -> None:
    """Looks at the page as a phone or a screen does, light or dark."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1}
    command = "Emulation.setDeviceMetricsOverride"
    browser.execute_cdp_cmd(command, {**size, "mobile": width < 600})
    feature = {"name": "prefers-color-scheme", "value": scheme}
    command = "Emulation.setEmulatedMedia"
    browser.execute_cdp_cmd(command, {"features": [feature]})


def test_a_run_that_turned_nan(
    demo: Demo, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    """Step, cause and advice stand above all, and the charts show it."""
    run = demo.run("distance-loss")
    text = open_report(browser, run, tmp_path / "nan.html")
    step = json.loads((run / "state.json").read_text())["steps"] - 1
    head = browser.find_element(By.CSS_SELECTOR, ".banner.bad").text
    assert f"NaN Step {step} was not finite." in head
    assert "The gradient of Sqrt is not finite in distance" in head
    assert "sqrt(x + 1e-12)" in head
    assert "`" not in text
    codes = browser.find_elements(By.CSS_SELECTOR, ".banner .advice code")
    assert "sqrt(x + 1e-12)" in [code.text for code in codes]
    assert "Failed: nonfinite" in text
    assert "nonfinite_gradient" in text
    assert f"Autopsy of step {step}" in text
    assert "digits.py:48" in text
    for said in ("nonfinite_gradients", "keras", "CPU", "Adam", "26\u202f122"):
        assert said in text
    for selector, least in (
        (".plot path.line", 5),
        (".plot path.mark", 5),
        (".heat path.hbad", 6),
        (".plot a.pin.critical", 5),
        (".heat svg", 16),
    ):
        found = browser.find_elements(By.CSS_SELECTOR, selector)
        assert len(found) >= least, selector
        assert all(each.is_displayed() for each in found)
    pin = browser.find_element(By.CSS_SELECTOR, "a.pin")
    pin.click()
    assert browser.current_url.endswith("#finding-1")
    for width in (390, 1300):
        for scheme in ("light", "dark"):
            resize(browser, width, scheme)
            wide = browser.execute_script("return document.body.scrollWidth")
            assert wide <= width
            ground = "return getComputedStyle(document.body).backgroundColor"
            shade = re.findall(r"\d+", browser.execute_script(ground))[0]
            assert (int(shade) < 128) == (scheme == "dark")
            browser.save_screenshot(str(tmp_path / f"{width}-{scheme}.png"))


def test_a_healthy_run(
    demo: Demo, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    """It is told to be, and nothing is marked."""
    text = open_report(browser, demo.run("healthy"), tmp_path / "healthy.html")
    (head,) = browser.find_elements(By.CSS_SELECTOR, ".banner.good")
    assert re.fullmatch(r"580 of 580 steps in \d+ s, no findings\.", head.text)
    assert "None: no rule had anything to say." in text
    marked = ".mark, .event, .nan, .strip .hbad, a.pin"
    assert browser.find_elements(By.CSS_SELECTOR, marked) == []
    titles = [h.text for h in browser.find_elements(By.CSS_SELECTOR, "h2")]
    assert [title.removesuffix(" log scale") for title in titles] == [
        "Loss",
        "Gradient norm",
        "Gradient norm of each variable",
        "Update-to-weight ratio of each variable",
        "Silent units of each layer",
        "Saturation of each layer",
        "Epochs: accuracy",
        "Learning rate",
        "Step time, s",
        "Findings",
        "Environment",
    ]


def write_evil(run: Path) -> None:
    """Writes a run directory whose every text is an attack."""
    signals = ("loss", "gradient_norm", "nonfinite")
    norm = Slot("variable_gradient_norm", EVIL)
    schema = Schema((*map(Slot, signals), norm))
    state = RunState(Run("evil", EVIL, 1e9, EVIL, {EVIL: EVIL}, {EVIL: EVIL}))
    state.begin(state.anatomy, schema)
    sinks = disk_sinks(run, state, 1)[:-1]
    values = np.array([[1, 2, 0, 3], [1, math.nan, 1, 0]], np.float32)
    steps, times = np.arange(2), np.array([1e9, 1e9 + 1])
    finding = Finding(
        EVIL, "critical", EVIL, 1, 1, {EVIL: EVIL}, (EVIL,), EVIL, EVIL
    )
    records = (
        Block(steps, times, values, np.zeros(2, np.bool_)),
        finding,
        Beat(1e9 + 3, "failed", 2, 0.0, EVIL),
    )
    for sink in sinks:
        sink.open(state._run, schema)
    for record in records:
        state.fold(record)
        for sink in sinks:
            sink.write(record)
    for sink in sinks:
        sink.close()
    source = Source(EVIL, 1, EVIL, EVIL)
    autopsy = Autopsy("model", "forward", EVIL, EVIL, source, EVIL, step=1)
    folder = run / "blackbox" / "step-1"
    folder.mkdir(parents=True)
    (folder / "autopsy.json").write_text(dumps(autopsy.to_dict()))


def test_names_are_harmless(tmp_path: Path, browser: webdriver.Chrome) -> None:
    """A name with tags, quotes and line breaks is text, and nothing runs."""
    run = tmp_path / "evil"
    write_evil(run)
    text = open_report(browser, run, tmp_path / "evil.html")
    assert text.count("boom()") > 10
    assert "49" not in text  # nor does a template
    report = Report(run)
    page = Page(report.html())
    for tag, attributes in page.tags:
        assert tag not in ("script", "img", "link")
        assert not [name for name in attributes if name.startswith("on")]
        style = attributes.get("style") or "left:0%"
        assert re.fullmatch(r"(left|top):[\d.]+%", style)
    (frame,) = Page(report._repr_html_()).tags
    written = re.compile(r"\d\d:\d\d:\d\d UTC")  # when: maybe a second later
    framed = dict(frame[1])["srcdoc"] or ""
    assert written.sub("", framed) == written.sub("", report.html())
    assert dict(frame[1])["sandbox"] == ""
    assert "<" not in report.markdown()
    assert "\n&" not in report.markdown()


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    """Without a step, an anatomy or an event file there is a report, too."""
    run = tmp_path / "young"
    state = RunState(Run("young", "young", 1e9, "host", {}, {}))
    run.mkdir()
    (run / "state.json").write_text(dumps(state.snapshot()))
    said = Page(Report(run).html()).text
    assert "No readings" in said
    assert "Lost: the last sign of life told starting" in said


def test_of_a_watched_fit(tmp_path: Path) -> None:
    """A notebook shows `watch.report()`; before a fit it is an error."""
    watch = GradWatch(tmp_path)
    with pytest.raises(GradWatchError, match="pass this callback to `fit`"):
        watch.report()
    fit(classifier(), watch)
    report: Any = watch.report()
    assert watch.run is not None
    assert report._repr_html_().startswith("<iframe srcdoc=")
    assert watch.run.id in report._repr_markdown_()

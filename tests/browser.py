"""A headless Chromium that is left to itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

__all__ = ["browsing"]


@contextmanager
def browsing(
    folder: Path, *flags: str, logs: bool = False
) -> Iterator[webdriver.Chrome]:
    """Runs it; yields its driver.

    Args:
        folder: for its profile.
        flags: further options of Chromium, without dashes.
        logs: whether what pages say on their console is kept.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium, "install chromium"
    assert driver, "install chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    if logs:
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        f"user-data-dir={folder / 'profile'}",
        *flags,
    ):
        options.add_argument(f"--{flag}")
    chrome = webdriver.Chrome(options, Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()

"""A headless Chromium that is left to itself, and TensorBoard to look at."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

__all__ = ["browsing", "tensorboard"]

_SECONDS = 100.0  # until TensorBoard is up


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


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """Runs the real one; yields its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--port", "0"]
    command += ["--host", "127.0.0.1", "--logdir", str(logdir)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        address: Queue[str] = Queue()

        def drain(lines: Iterator[str]) -> None:
            for line in lines:
                for found in re.findall(r"http://127[^ ]+", line):
                    address.put(found)

        thread = threading.Thread(target=drain, args=(process.stderr,))
        thread.start()
        try:
            yield address.get(timeout=_SECONDS)
        finally:
            process.terminate()
            process.wait(30)
            thread.join(30)

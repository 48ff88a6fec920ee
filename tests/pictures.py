"""Takes the README's pictures anew: `python -m tests.pictures`.

Trains the demo, opens its runs in the real TensorBoard and in gradwatch's own
service, and its report, in a headless Chromium, and writes to
`dashboards/pictures/`.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from PIL import Image
from selenium import webdriver

from tests.browser import browsing, tensorboard
from tests.monitoring.stack import serving
from tests.test_tensorboard_page import says

_ROOT = Path(__file__).parents[1]
FOLDER = _ROOT / "dashboards" / "pictures"
_COLOURS = 128  # of a palette: a third of the bytes, and nobody sees it
_DRAWN = 3.0  # seconds until charts have moved into their places
_SECONDS = 60.0


def pages(
    board: str, service: str, broken: Path
) -> Iterator[tuple[str, str, list[str]]]:
    """Yields name, address and what must be on the page.

    All but two say what turned NaN, and why.
    """
    charts = ["Does it learn?", "Do gradients arrive?"]
    yield "tensorboard-charts", f"{board}#custom_scalars", charts
    yield "tensorboard-text", f"{board}#text", ["Sqrt", "digits.py"]
    yield "service-fleet", f"{service}/", ["healthy", "distance-loss"]
    cause = ["nonfinite_gradient", "Sqrt", "digits.py"]
    yield "service-run", f"{service}/runs/{broken.name}", cause
    yield "report", (broken / "report.html").as_uri(), cause


def main() -> None:
    """Takes all of them."""
    FOLDER.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        logdir = folder / "runs"
        # Pictures show where a line stands: not in somebody's home.
        shutil.copytree(_ROOT / "gradwatch", folder / "gradwatch")
        demo = [sys.executable, "-m", "gradwatch.cli", "demo", "--logdir"]
        subprocess.run([*demo, str(logdir)], check=True, cwd=folder)
        board = stack.enter_context(tensorboard(logdir))
        service = f"http://{stack.enter_context(serving(logdir))}"
        size = "window-size=1400,1000"
        browser = stack.enter_context(browsing(folder, size))
        (broken,) = logdir.glob("distance-loss-*")
        for name, url, texts in pages(board, service, broken):
            browser.get("about:blank")
            browser.get(url)
            _wait(lambda texts=texts: says(browser, texts))  # type: ignore[misc]
            time.sleep(_DRAWN)
            _save(browser, FOLDER / f"{name}.png")
            print(FOLDER / f"{name}.png")


def _wait(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not seen():
        assert time.monotonic() < end, "the page does not show what it should"
        time.sleep(0.2)


def _save(browser: webdriver.Chrome, path: Path) -> None:
    with Image.open(io.BytesIO(browser.get_screenshot_as_png())) as image:
        colours = image.convert("RGB").quantize(_COLOURS)
        colours.save(path, optimize=True)


if __name__ == "__main__":
    main()

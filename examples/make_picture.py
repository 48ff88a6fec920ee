"""Makes `terminal.svg`, the picture in the README, from a real demo run.

Run it again with `python examples/make_picture.py` when the demo or a message
has changed.
"""

import contextlib
import io
import os
import re
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up

from rich.console import Console
from rich.text import Text

from gradwatch.demo import demo

PICTURE = Path(__file__).resolve().with_name("terminal.svg")
WIDTH = 118


def make_picture() -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text("$ make demo", style="bold"))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("docker-compose.yml").touch()  # as in a checkout
        demo(Path("runs"), console, ".venv/bin/")
    picture = console.export_svg(title="gradwatch", unique_id="gradwatch")
    # Without fonts from the network: a picture in a page may not load any.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    PICTURE.write_text(picture)
    print(f"{PICTURE.name}: {len(picture) / 1000:.0f} kB")


if __name__ == "__main__":
    make_picture()

"""A run as one page to send around, of what its directory holds.

`Report` reads when it is asked: nothing is loaded before. Must not import
keras, tensorflow or the service.
"""

from __future__ import annotations

import html
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch.errors import not_installed

if TYPE_CHECKING:
    from gradwatch.report.contents import Contents, Tell

__all__ = ["Report"]

_HEIGHT = 900  # of the frame in a notebook, in pixels


class Report:
    """A run's report; a notebook shows it.

    Args:
        run_dir: the run directory, finished or not.
        tell: takes the share of the readings that has been read, 0 to 1.
    """

    def __init__(self, run_dir: str | Path, tell: Tell | None = None) -> None:
        self._path = Path(run_dir)
        self._tell = tell

    @cached_property
    def contents(self) -> Contents:
        """What the directory held when it was first asked for.

        Raises:
            GradWatchError: it is no run directory.
            OSError: it cannot be read.
        """
        from gradwatch.report.contents import read_contents

        return read_contents(self._path, self._tell)

    def html(self) -> str:
        """Returns one HTML document; asks for nothing else, runs nothing.

        Raises:
            ModuleNotFoundError: the extra `[report]` is not installed.
            GradWatchError: see `contents`.
        """
        try:
            from gradwatch.report.page import page
        except ModuleNotFoundError as error:
            package = str(error.name)
            said = not_installed("A report as HTML", package, "report")
            raise ModuleNotFoundError(said, name=package) from error
        return page(self.contents, time.time())

    def markdown(self) -> str:
        """Returns a short Markdown text, for a pull request."""
        from gradwatch.report.markdown import markdown

        return markdown(self.contents)

    def _repr_html_(self) -> str:
        """For notebooks: in a frame, so that no style leaks."""
        document = html.escape(self.html())
        return (
            f'<iframe srcdoc="{document}" sandbox="" width="100%" '
            f'height="{_HEIGHT}" style="border:0"></iframe>'
        )

    def _repr_markdown_(self) -> str:
        return self.markdown()

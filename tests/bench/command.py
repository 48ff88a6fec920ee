"""The command line of a measurement: its arguments are the options."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.figures import Report, save

__all__ = ["command"]


def command(
    measure: Callable[..., Any], report: Callable[[Any], Report], text: str
) -> None:
    """Measures what the options name, prints a table, saves raw figures.

    Args:
        measure: every argument has a default, which tells its type.
        report: reads what `measure` returns.
        text: what `--help` says.
    """
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawTextHelpFormatter
    )
    for name, argument in inspect.signature(measure).parameters.items():
        default = argument.default
        kind = type(default[0] if isinstance(default, tuple) else default)
        many = "*" if isinstance(default, tuple) else None
        parser.add_argument(f"--{name}", type=kind, default=default, nargs=many)
    parser.add_argument("--json", type=Path, help="where raw figures go")
    chosen = vars(parser.parse_args())
    path = chosen.pop("json")
    results = measure(**chosen)
    found = report(results)
    print(found.text, *found.misses, sep="\n")
    if path:
        save(path, results)

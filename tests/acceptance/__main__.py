"""Runs the long proofs; writes what they found, with the date.

    python -m tests.acceptance

Ends with status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tests.acceptance import soak
from tests.bench import memory, overhead, trace
from tests.bench.figures import facts, save, table

_FOLDER = Path(__file__).parent / "results"
_PARTS: tuple[tuple[str, Any, dict[str, Any]], ...] = (
    (
        "What watching costs",
        overhead,
        {"rounds": 2, "seconds": 0.2, "steps": 0, "only": ("tiny",)},
    ),
    ("First step", trace, {"repeats": 2, "variables": (4,)}),
    ("Memory", memory, {"repeats": 2, "variables": 4}),
    ("Long run", soak, {"steps": 5000}),
)
"""Title, module, and what makes it quick."""


def main() -> None:
    """Measures all parts; writes `<date>.md` and, raw, `<date>.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=_FOLDER)
    parser.add_argument(
        "--quick", action="store_true", help="a trial of this command"
    )
    chosen = parser.parse_args()
    known = facts()
    file = chosen.folder / f"{known['date']}.md"
    raw, sections, misses = {}, [], []
    for title, part, less in _PARTS:
        raw[title] = part.measure_all(**(less if chosen.quick else {}))
        save(file.with_suffix(".json"), raw)
        report = part.report(raw[title])
        sections.append(f"## {title}\n\n{report.text}\n")
        misses += report.misses
    told = "\n".join(f"- {miss}" for miss in misses) or "All targets are met."
    quick = " (quick: proves nothing)" if chosen.quick else ""
    head = f"# Acceptance, {known['date']}{quick}\n"
    about = table(["what", "which"], [*known.items()])
    text = "\n".join([head, about, f"\n## Misses\n\n{told}\n", *sections])
    file.write_text(text)
    print(text)
    sys.exit(bool(misses))


if __name__ == "__main__":
    main()

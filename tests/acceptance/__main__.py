"""Runs the long proofs; writes what they found, with the date.

    python -m tests.acceptance
    python -m tests.acceptance --parts overhead soak --only tiny --cores 1

All of it takes many hours. Parts that were measured before on the same day are
kept, so it can be run piece by piece. Ends with status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.acceptance import soak
from tests.bench import memory, overhead, trace
from tests.bench.figures import facts, save, table
from tests.bench.workloads import WORKLOADS

_FOLDER = Path(__file__).parent / "results"
_PARTS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "overhead": (
        "What watching costs",
        overhead,
        {"rounds": 2, "seconds": 0.2, "steps": 0, "only": ("tiny",)},
    ),
    "trace": ("First step", trace, {"repeats": 2, "variables": (4,)}),
    "memory": ("Memory", memory, {"repeats": 2, "variables": 4}),
    "soak": ("Long run", soak, {"steps": 5000}),
}
"""Title, module, and what makes it quick."""


def main() -> None:
    """Measures parts; writes `<date>.md` and, raw, `<date>.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=_FOLDER)
    parser.add_argument("--parts", nargs="*", default=_PARTS, choices=_PARTS)
    parser.add_argument(
        "--only", nargs="*", default=WORKLOADS, help="workloads of overhead"
    )
    parser.add_argument(
        "--cores", nargs="*", type=int, default=(1, 2), help="of overhead"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a trial of this command"
    )
    chosen = parser.parse_args()
    file = chosen.folder / f"{facts()['date']}.json"
    raw = json.loads(file.read_text())["results"] if file.exists() else {}
    for part in chosen.parts:
        _, module, less = _PARTS[part]
        options = dict(less) if chosen.quick else {}
        if part == "overhead":
            options["cores"] = tuple(chosen.cores)
            options.setdefault("only", tuple(chosen.only))
            for setting in module.settings(**options):
                found = module.measure_one(setting)
                raw[part] = module.joined(raw.get(part, []), found)
                save(file, raw)
            continue
        raw[part] = module.measure_all(**options)
        save(file, raw)
    sys.exit(_report(file, raw, chosen.quick))


def _report(file: Path, raw: dict[str, Any], quick: bool) -> bool:
    """Writes and prints what was found; returns whether a target is missed."""
    sections, misses = [], []
    for part, (title, module, _) in _PARTS.items():
        if part not in raw:
            misses.append(f"{title}: not measured")
            continue
        report = module.report(raw[part])
        sections.append(f"## {title}\n\n{report.text}\n")
        misses += report.misses
    told = "\n".join(f"- {miss}" for miss in misses) or "All targets are met."
    known = facts()
    trial = " (quick: proves nothing)" if quick else ""
    head = f"# Acceptance, {known['date']}{trial}\n"
    about = table(["what", "which"], [*known.items()])
    text = "\n".join([head, about, f"\n## Misses\n\n{told}\n", *sections])
    file.with_suffix(".md").write_text(text)
    print(text)
    return bool(misses)


if __name__ == "__main__":
    main()

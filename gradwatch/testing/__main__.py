"""`python -m gradwatch.testing`: records scenarios, shows that labels hold."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from gradwatch.rules import default_rules
from gradwatch.testing.detection import Verdict, half, judged, table
from gradwatch.testing.measure import measure
from gradwatch.testing.onset import Onset, delays, onset
from gradwatch.testing.recording import Recording, load, save
from gradwatch.testing.scenario import Scenario
from gradwatch.testing.zoo import SCENARIOS

app = typer.Typer(add_completion=False, no_args_is_help=True)

_UNITS = (1e-6, 1e6)  # in which losses of healthy runs are judged as well

Out = Annotated[Path, typer.Option(help="Folder of the recordings.")]


@app.command()
def record(
    out: Out,
    only: Annotated[
        list[str] | None, typer.Option(help="Name or a part of it.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many, from 0.")] = 1,
    healthy_seeds: Annotated[
        int, typer.Option(help="The same for healthy programs; 0 = as many.")
    ] = 0,
    again: Annotated[bool, typer.Option(help="Also what is there.")] = False,
) -> None:
    """Train scenarios and the twins of faulty ones, keep what rules get."""
    out.mkdir(parents=True, exist_ok=True)
    for scenario in _chosen(only):
        alone = healthy_seeds if not scenario.rule else 0
        for run in _runs(scenario):
            for seed in range(alone or seeds):
                path = _path(out, run, seed)
                if again or not path.exists():
                    save(measure(run, seed), path)
            typer.echo(run.name)


@app.command()
def labels(
    out: Out,
    only: Annotated[
        list[str] | None, typer.Option(help="Name or a part of it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the recordings.")] = 0,
) -> None:
    """Show from recordings that fixed twins learn, and what faults cost."""
    typer.echo(
        "| scenario | rule | quality | fixed | steps | seconds | holds |"
    )
    typer.echo("|---|---|---|---|---|---|---|")
    wrong = 0
    for scenario in _chosen(only):
        paths = [_path(out, run, seed) for run in _runs(scenario)]
        if all(path.exists() for path in paths):
            row, holds = _row(scenario, [load(path) for path in paths])
            typer.echo(row)
            wrong += not holds
    typer.echo(f"\n{wrong} labels do not hold.")
    raise typer.Exit(int(wrong > 0))


@app.command("judge")
def judge_all(
    out: Out,
    only: Annotated[
        list[str] | None, typer.Option(help="Name or a part of it.")
    ] = None,
    halves: Annotated[
        list[int] | None, typer.Option(help="0, 1 or both, see `detection`.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="File for the table, with the date.")
    ] = None,
) -> None:
    """Judge recordings by the default rules; show misses and false alarms."""
    verdicts, wrong = [], []
    onsets: list[Onset | None] = []
    for scenario in _chosen(only):
        if half(scenario.name) not in (halves or (0, 1)):
            continue
        for run in _runs(scenario):
            for path in sorted(out.glob(f"{run.name}-[0-9].zip")):
                recording = load(path)
                for unit in (1.0,) if run.rule else (1.0, *_UNITS):
                    verdict = judged(run, recording, default_rules, unit)
                    verdicts.append(verdict)
                    wrong += _wrong(verdict)
                    if run.rule and verdict.critical is not None:
                        told = verdict.critical.last_step
                        onsets.append(onset(recording, told))
    soon = delays(each for each in onsets if each is not None)
    text = "\n".join([*wrong, "", table(verdicts), "", soon])
    typer.echo(text)
    if report is not None:
        today = datetime.date.today().isoformat()
        report.write_text(f"# Detection, {today}\n\n{text}\n")


def _wrong(verdict: Verdict) -> list[str]:
    """What is not as it should be, if anything."""
    scenario = verdict.scenario
    said = ", ".join(
        f"{f.rule} ({f.severity}, {f.subject or 'run'}, step {f.last_step})"
        for f in verdict.findings
    )
    if scenario.rule and verdict.right is None:
        what = f"missed {scenario.rule}"
    elif scenario.rule and not verdict.culprit:
        what = f"{scenario.rule} not at {scenario.subject}"
    elif not verdict.learned:
        what = "did not learn"
    elif not scenario.rule and verdict.serious:
        what = "false alarm"
    else:
        return []
    unit = "" if verdict.unit == 1 else f", loss times {verdict.unit:g}"
    run = f"{scenario.name}, seed {verdict.seed}{unit}"
    return [f"- {run}: {what}; told: {said or 'nothing'}"]


def _row(scenario: Scenario, runs: list[Recording]) -> tuple[str, bool]:
    qualities = [run.quality for run in runs]
    holds = scenario.holds(qualities[0], runs[0].error, qualities[-1])
    numbers = [f"{quality:.2f}" for quality in qualities]
    cells = (
        scenario.name,
        scenario.rule or "healthy",
        *(numbers if scenario.rule else [*numbers, ""]),
        str(runs[0].steps),
        f"{runs[0].seconds:.1f}",
        "yes" if holds else "**no**",
    )
    return f"| {' | '.join(cells)} |", holds


def _chosen(only: list[str] | None) -> list[Scenario]:
    parts = only or [""]
    return [s for s in SCENARIOS if any(part in s.name for part in parts)]


def _runs(scenario: Scenario) -> list[Scenario]:
    return [scenario, *([scenario.twin()] if scenario.rule else [])]


def _path(out: Path, run: Scenario, seed: int) -> Path:
    return out / f"{run.name}-{seed}.zip"


if __name__ == "__main__":
    app()

"""The demo: one healthy run and one that turns NaN, on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2  # noqa: F401  (missing, it is to be named before the training)
import keras
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from gradwatch.callback import GradWatch
from gradwatch.testing.digits import digits, digits_model, distance

__all__ = ["demo"]

_EPOCHS = 20
_BATCH = 64
_REPORT = "report.html"


def demo(
    logdir: Path, console: Console, typed: str = ""
) -> dict[str, GradWatch]:
    """Trains both twins, shows what gradwatch says, writes a report.

    Args:
        logdir: folder for the run directories.
        console: where it is shown.
        typed: what stands before the commands that it names.

    Returns:
        The watchers by name of the run, `healthy` and `distance-loss`.
    """
    x, y = digits()
    console.print(
        f"Two runs of the same model on {len(x):,} handwritten digits: one "
        "with cross-entropy, one with a home-made distance loss."
    )
    losses = {"healthy": "categorical_crossentropy", "distance-loss": distance}
    watches: dict[str, GradWatch] = {}
    columns = (
        TextColumn("{task.description:14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs  {task.fields[said]}"),
    )
    with Progress(*columns, console=console) as progress:
        for name, loss in losses.items():
            watches[name] = GradWatch(logdir, name=name)
            _train(digits_model(loss), x, y, watches[name], name, progress)
    _show(watches, console)
    broken = watches["distance-loss"]
    run_dir = logdir / broken.state["run"]["id"]
    (run_dir / _REPORT).write_text(broken.report().html())
    console.print("Report:", highlight=False)
    console.print(f"  {run_dir / _REPORT}", highlight=False, soft_wrap=True)
    console.print("\nLook further, where each shows that NaN and its cause:")
    for what, command in _commands(logdir, run_dir, typed).items():
        said = f"  {what:13}[bold]{escape(command)}[/]"
        console.print(said, highlight=False, soft_wrap=True)
    return watches


def _commands(logdir: Path, run_dir: Path, typed: str) -> dict[str, str]:
    """Returns what shows the runs -> the command."""
    checkout = Path("docker-compose.yml").is_file()
    files = f"{typed}gradwatch monitoring build --out monitoring"
    return {
        "TensorBoard": f"{typed}tensorboard --logdir {logdir}",
        "Service": f"{typed}gradwatch serve --logdir {logdir}",
        "Grafana": "make grafana" if checkout else files,
        "Report": f"{typed}gradwatch report {run_dir}",
    }


def _train(
    model: Any, x: Any, y: Any, watch: GradWatch, name: str, progress: Progress
) -> None:
    task = progress.add_task(name, total=_EPOCHS, said="")

    def tell(epoch: int, logs: dict[str, float]) -> None:
        said = f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.3f}"
        progress.update(task, completed=epoch + 1, said=said)

    model.fit(
        x,
        y,
        batch_size=_BATCH,
        epochs=_EPOCHS,
        verbose=0,
        callbacks=[watch, keras.callbacks.LambdaCallback(on_epoch_end=tell)],
    )


def _show(watches: dict[str, GradWatch], console: Console) -> None:
    table = Table(title="What gradwatch says", title_justify="left")
    for heading in ("run", "state", "steps", "finding"):
        table.add_column(heading, overflow="fold")
    for name, watch in watches.items():
        state = watch.state
        reason = f" ({state['reason']})" if state["reason"] else ""
        table.add_row(
            name,
            f"{state['phase']}{reason}",
            f"{state['steps']} of {state['planned_steps']}",
            "\n".join(
                f"[bold red]{f.rule}[/] at step {f.first_step}"
                for f in watch.findings
            )
            or "[green]none[/]",
        )
    console.print(table)
    for name, watch in watches.items():
        for f in watch.findings:
            text = f"{escape(f.message)}\n\n[green]{escape(f.advice)}[/]"
            title = f"{name}: {f.rule}"
            console.print(Panel(text, title=title, title_align="left"))
    console.print("Run directories:", highlight=False)
    for watch in watches.values():
        console.print(f"  {watch.path}", highlight=False, soft_wrap=True)

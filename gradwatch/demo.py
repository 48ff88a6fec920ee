"""The demo: one healthy run and one that turns NaN, on real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def demo(logdir: Path, console: Console) -> dict[str, GradWatch]:
    """Trains both twins and shows what gradwatch says.

    Args:
        logdir: folder for the run directories.
        console: where it is shown.

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
    console.print("\nLook further:", highlight=False)
    broken = watches["distance-loss"].path
    for command in (
        f"cat {broken}/blackbox/step-*/autopsy.md",
        f"tensorboard --logdir {logdir}",
        f"gradwatch serve --logdir {logdir}",
    ):
        console.print(
            f"  {command}", style="bold", highlight=False, soft_wrap=True
        )
    return watches


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

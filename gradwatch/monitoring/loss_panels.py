"""Panels on a run's loss, its learning rate, and what the loss is made of."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.monitoring.charts import timeseries
from gradwatch.monitoring.losses import ERROR, FALL, GAIN
from gradwatch.monitoring.panels import Panel, Query
from gradwatch.monitoring.queries import BY, Shown

__all__ = ["loss", "parts"]


def loss(shown: Shown) -> Iterator[Panel]:
    """Yields what the loss is, and whether it still falls."""
    factor = shown.settings.number("diverging_factor")
    first = shown.finite("loss_window_first", split="train")
    yield timeseries(
        "Loss",
        "gradwatch_loss: of single steps and of validations, where it is "
        "finite; gradwatch_loss_window_mean: of the last 256 steps. Above the "
        "dashed line, for good, GradwatchDivergingLoss fires: lower the "
        "learning rate.",
        "short",
        [
            Query(shown.finite("loss"), "{{split}}"),
            Query(shown.finite("loss_window_mean"), "mean of 256 steps"),
            Query(f"{factor} * ({first} > 0)", "diverges above", dashed=True),
        ],
        scale="symlog",
    )
    rates = shown.positive("optimizer_learning_rate")
    yield timeseries(
        "Learning rate",
        "gradwatch_learning_rate in force, where it is not 0; of several "
        "optimizers gradwatch_optimizer_learning_rate. Does the schedule do "
        "what was meant?",
        "sci",
        [
            Query(shown.positive("learning_rate"), "learning rate"),
            Query(rates, "{{optimizer}}"),
        ],
        scale="log",
    )
    yield from _progress(shown)


def _progress(shown: Shown) -> Iterator[Panel]:
    """Yields whether the loss still falls."""
    s = shown.settings
    fall = shown.recorded(FALL)
    yield timeseries(
        "By how much the loss falls",
        f"{FALL} over {ERROR}, both recorded by the rules of "
        "dashboards/prometheus: the fall within a window, in standard errors. "
        "Below the line, late in a run, GradwatchStalledLoss fires.",
        "none",
        [Query(f"{fall} / ({shown.recorded(ERROR)} > 0)", "standard errors")],
        marks=((None, "text"), (s.value("stalled_loss_errors"), "green")),
    )
    yield timeseries(
        "How far the loss has come",
        f"{GAIN}, recorded by the rules of dashboards/prometheus: 0 = no "
        "better than a constant answer, 100 % = as low as the targets allow. A "
        "loss below the line that does not fall is stalled.",
        "percentunit",
        [Query(shown.recorded(GAIN), "share of the way")],
        marks=((None, "text"), (s.value("stalled_loss_gain"), "green")),
    )


def parts(shown: Shown) -> Iterator[Panel]:
    """Yields what the loss is made of, and the metrics beside it."""
    leaves = shown.leaves()
    total = f"sum by ({BY}) (abs({leaves}))"
    named = "{{component}}"
    share = f"abs({leaves}) / on ({BY}) group_left () ({total} > 0)"
    yield timeseries(
        "Components",
        "gradwatch_loss_component: those without parts of their own, weighted; "
        "they add up to the loss.",
        "short",
        [Query(leaves, named)],
        stacked=True,
    )
    yield timeseries(
        "Components, as shares",
        "The same, as shares of the sum of their magnitudes. One that is next "
        "to all of it hides the others: see the weights.",
        "percentunit",
        [Query(share, named)],
        stacked=True,
        limits=(0, 1),
    )
    yield timeseries(
        "Gradient norm of components",
        "gradwatch_component_gradient_norm at the last X-ray: what each of "
        "them asks of the weights.",
        "sci",
        [Query(shown.positive("component_gradient_norm"), named)],
        scale="log",
    )
    yield timeseries(
        "Angle between components",
        "gradwatch_component_gradient_cosine at the last X-ray: at -1 one "
        "undoes what the other does, at 0 they do not meet.",
        "none",
        [Query(shown.finite("component_gradient_cosine"), named)],
        limits=(-1, 1),
    )
    yield from _metrics(shown)


def _metrics(shown: Shown) -> Iterator[Panel]:
    """Yields what Keras computes beside the loss."""
    metric = shown.finite("metric_value")
    yield timeseries(
        "Metrics",
        "gradwatch_metric_value: Keras' own, at the end of each epoch.",
        "short",
        [Query(metric, "{{split}}: {{metric}}")],
    )

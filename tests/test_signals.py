"""The grid of histograms and the names that derive from a signal."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch.families import families
from gradwatch.records import Schema
from gradwatch.signals import HISTOGRAM_EDGES, SIGNALS, Slot, prometheus_name


def places(*values: float) -> list[int]:
    """Returns the bins of some values, as the grid defines them."""
    return np.searchsorted(HISTOGRAM_EDGES, values, side="right").tolist()


def test_the_grid_is_half_decades_and_their_negatives() -> None:
    """98 ascending edges, the same on both sides, half a decade apart."""
    assert HISTOGRAM_EDGES.shape == (98,)
    assert (np.diff(HISTOGRAM_EDGES) > 0).all()
    assert (-HISTOGRAM_EDGES[::-1] == HISTOGRAM_EDGES).all()
    decades = np.log10(HISTOGRAM_EDGES[49:].astype(np.float64))
    assert np.allclose(decades, np.arange(-20, 4.5, 0.5), rtol=0, atol=1e-7)


def test_the_grid_is_the_same_in_float32_and_float64() -> None:
    """No rounding moves an edge, so a device bins as the host does."""
    assert HISTOGRAM_EDGES.dtype == np.float32
    wide = HISTOGRAM_EDGES.astype(np.float64)
    for edges in (HISTOGRAM_EDGES, wide):
        found = np.searchsorted(edges, HISTOGRAM_EDGES, side="right")
        assert found.tolist() == list(range(1, 99))


def test_an_edge_belongs_to_the_bin_on_its_right() -> None:
    """The middle bin has zeros and what is tiny, the outer ones are open."""
    assert places(0.0, -0.0, 9e-21, -9e-21) == [49] * 4
    one = float(HISTOGRAM_EDGES[49])
    assert places(one, -one) == [50, 49]
    assert places(1.0, np.nextafter(np.float32(1), 0)) == [90, 89]
    assert places(1e4, 1e30, -1e30) == [98, 98, 0]


def test_nobody_can_change_the_grid() -> None:
    """It is shared by all runs of a process."""
    with pytest.raises(ValueError, match="read-only"):
        HISTOGRAM_EDGES[0] = 0.0


def test_a_unit_is_not_said_twice() -> None:
    """The suffix is the unit, once, also if the signal's name has it."""
    name = "variable_zero_gradient_ratio"
    assert SIGNALS[name].unit == "ratio"
    assert prometheus_name(name) == f"gradwatch_{name}"


def test_histograms_are_measured_by_xrays_and_are_no_gauges() -> None:
    """Each is an X-ray signal of a variable or layer, told by TensorBoard."""
    histograms = [s for s in SIGNALS.values() if s.histogram]
    assert histograms
    for signal in histograms:
        assert signal.xray
        assert signal.scope in ("variable", "layer")
        assert signal.name not in families()


def test_every_xray_scalar_is_a_gauge() -> None:
    """An X-ray signal is exported with the label of its scope."""
    for signal in SIGNALS.values():
        if signal.xray and not signal.histogram:
            short = prometheus_name(signal.name).removeprefix("gradwatch_")
            labels = {"run": ("run",)}.get(signal.scope, ("run", signal.scope))
            assert families()[short].labels == labels


def test_a_schema_knows_its_xray_columns() -> None:
    """Columns of unknown signals count as measured at every step."""
    names = ("loss", "variable_weight_norm", "never_heard", "layer_mean")
    xray = Schema(tuple(Slot(name, "a") for name in names)).xray
    assert xray.tolist() == [False, True, False, True]
    assert Schema().xray.shape == (0,)

"""What rounding explains: by how much, how fast it grows, and what not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gradwatch.compare.parting import Parting, parting
from gradwatch.compare.rounding import kind, limits, scaled, unit
from gradwatch.compare.tables import Table
from gradwatch.signals import Slot

SINGLE = unit(["CPU"], ["float32"])
SLOTS = (
    Slot("loss"),
    Slot("learning_rate"),
    Slot("variable_gradient_norm", "net/dense/kernel"),
    Slot("variable_gradient_norm", "net/dense/bias"),
)


def table(values: NDArray[np.float64], every: int = 1) -> Table:
    """Returns rows `[N, 4]` of the slots above."""
    steps = np.arange(len(values)) * every
    nothing = np.zeros(len(values), np.bool_)
    return Table(SLOTS, steps, values.astype(np.float32), nothing)


def compared(
    differences: NDArray[np.float64], every: int = 1, unit: float = SINGLE
) -> Parting:
    """Compares a run with one that differs so, relatively: `[N, 4]`."""
    ones = np.tile([2.0, 0.1, 3.0, 1.0], (len(differences), 1))
    a, b = table(ones, every), table(ones * (1 + differences), every)
    return parting([a], [b], unit)


def growing(steps: int, factor: float) -> NDArray[np.float64]:
    """Returns differences of loss and gradients that grow from 1e-6."""
    sizes = np.minimum(1e-6 * factor ** np.arange(steps), 0.9)
    return sizes[:, np.newaxis] * np.array([1.0, 0.0, 1.0, 1.0])


def test_what_grows_from_step_to_step_is_rounding() -> None:
    """Also where it passes 1 %, and where it has become all of the value."""
    found = compared(growing(100, 1.3))
    assert (found.verdict, found.unequal, found.step) == ("rounding", 0, -1)
    assert found.percent == 36  # 1e-6 * 1.3^36 > 0.01
    assert found.differences[0].relative == pytest.approx(1e-6, rel=0.2)


@pytest.mark.parametrize("column", [0, 2])
def test_a_jump_is_none(column: int) -> None:
    """By a thousand times what was there before, of a loss or a gradient."""
    differences = growing(30, 1.05)
    differences[20, column] = 0.05
    found = compared(differences)
    assert (found.verdict, found.step, found.before) == ("different", 20, 19)
    assert [d.signal for d in found.differences] == [SLOTS[column].signal]


def test_after_a_gap_more_is_rounding() -> None:
    """Nobody has seen the steps between: it may have grown meanwhile."""
    differences = growing(3, 30.0)  # 1e-6, 3e-5, 9e-4
    assert compared(differences).step == 2
    assert compared(differences, every=20).step == -1


def test_a_small_difference_that_comes_suddenly_is_told() -> None:
    """Kernels that were the same to the bit for long do not change."""
    differences = np.zeros((20, 4))
    differences[10:, 0] = 1e-4
    assert compared(differences).step == 10
    assert compared(differences[10:]).step == -1


def test_settings_are_exact() -> None:
    """A learning rate does not round; what follows it is told, too."""
    differences = np.zeros((5, 4))
    differences[2:, 1] = 1e-3
    differences[3:, 0] = 0.1
    found = compared(differences)
    assert (found.step, found.effect) == (2, 3)
    assert found.differences[0].signal == "learning_rate"
    # Once runs are far apart, a schedule that looks at the loss may differ.
    differences = growing(100, 1.3)
    differences[60:, 1] = 0.5
    assert compared(differences).verdict == "rounding"


def test_lower_precisions_round_more() -> None:
    """Half of the digits of float32, the last ones of float16."""
    differences = np.zeros((3, 4))
    differences[:, 0] = 4e-4
    assert compared(differences).verdict == "different"
    half = unit(["CPU"], ["float32", "float16"])
    assert half == np.finfo(np.float16).eps / 2
    assert compared(differences, unit=half).verdict == "rounding"
    assert unit(["NVIDIA H100"], ["float32"]) == half  # TensorFloat-32
    assert unit([], []) == SINGLE == np.finfo(np.float32).eps / 2


def test_a_gradient_of_nothing_but_rounding() -> None:
    """That of a bias before BatchNorm is all noise, and tells nothing."""
    ones = np.tile([2.0, 0.1, 3.0, 3e-8], (3, 1))
    other = ones.copy()
    other[:, 3] = -1e-7
    assert parting([table(ones)], [table(other)], SINGLE).verdict == "rounding"
    other[:, 3] = 0.1
    assert parting([table(ones)], [table(other)], SINGLE).step == 0


def test_a_loss_of_nothing_but_rounding() -> None:
    """Where all is learned its error is as large as before."""
    losses = np.array([2.3, 0.1, 8.241e-5, 0.1])
    ones = np.tile([0.0, 0.1, 1.0, 1.0], (4, 1))
    ones[:, 0] = losses
    other = ones.copy()
    other[2, 0] += 3e-8
    assert parting([table(ones)], [table(other)], SINGLE).verdict == "rounding"
    other[2, 0] += 1e-5
    assert parting([table(ones)], [table(other)], SINGLE).step == 2


def test_what_is_not_finite() -> None:
    """NaN is like NaN, and like nothing else."""
    slots = [Slot("loss"), Slot("gradient_norm")]
    a = np.array([[np.nan, np.inf], [np.nan, 1.0]])
    b = np.array([[np.nan, np.inf], [1.0, np.inf]])
    found = scaled(slots, a, b, np.zeros(2))
    np.testing.assert_array_equal(found, [[0, 0], [np.inf, np.inf]])


def test_nothing_in_common() -> None:
    """No step, or no slot."""
    one = table(np.ones((3, 4)))
    late = one._replace(steps=one.steps + 10)
    assert parting([one], [late], SINGLE) == Parting()
    assert parting([one], [], SINGLE).verdict == "unknown"
    assert limits(np.zeros(0, np.int64), np.zeros((0, 4)), SINGLE).shape == (
        0,
        4,
    )


def test_kinds() -> None:
    """What is given, exact, a loss or a gradient; the rest is not judged."""
    judged = {
        Slot("examples"): "given",
        Slot("batch_mean", "inputs"): "given",
        Slot("batch_mean", "predictions/box"): None,
        Slot("update_dropped"): "exact",
        Slot("loss_component", "a/b"): "loss",
        Slot("loss_component", "a/unexplained"): None,
        Slot("clip_factor"): "gradient",
        Slot("variable_weight_norm", "a/kernel"): None,
        Slot("step_time"): None,
    }
    assert {slot: kind(slot) for slot in judged} == judged

"""A test that a loss of one's own trains: `pytest examples/test_my_loss.py`."""

from typing import Any

from keras import ops

from gradwatch import assert_trainable


def my_loss(y_true: Any, y_pred: Any) -> Any:
    """Squared error that counts a forecast that is too low twice."""
    error = y_true - y_pred
    twice = ops.where(error > 0, 2.0, 1.0)
    return ops.mean(twice * ops.square(error), axis=-1)


def test_my_loss() -> None:
    """Its gradient, its minimum, what it makes of a batch."""
    assert_trainable(my_loss)

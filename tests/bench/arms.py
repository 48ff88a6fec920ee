"""Arms: one workload trained in several ways, measured in turns.

All arms of a measurement live in one process. In each round every arm trains
its own copy of the model for the same number of steps, in a new random order.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.eager.context import collect_graphs

from gradwatch import GradWatch
from tests.bench.workloads import WORKLOADS, compiled

__all__ = ["CHECKED", "OURS", "PEERS", "OwnTape", "Plan", "measure"]

_EPOCHS = 4  # of a round; one more before them is not measured
_WARM_UP = 10  # steps of an epoch; few, they only trace and settle


class Plan(NamedTuple):
    """How long to measure.

    Attributes:
        rounds: how often each arm has its turn.
        seconds: time of the plain arm in all its rounds, about, at least.
        steps: steps of each arm in all its rounds, at least.
    """

    rounds: int
    seconds: float
    steps: int


class OwnTape(keras.callbacks.Callback):
    """What people write: each batch a second time, for its gradient norm.

    Args:
        data: the dataset that is trained on, in the same order each time.

    Attributes:
        norms: the global norm after each step, of that step's batch.
    """

    def __init__(self, data: Any) -> None:
        super().__init__()
        self.norms: list[float] = []
        self._data = data

    def on_train_begin(self, logs: Any = None) -> None:
        """Keras: a fit begins, with the first batch."""
        self._batches = iter(self._data)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keras: a step is over."""
        self.norms.append(float(self._norm(*next(self._batches))))

    @tf.function
    def _norm(self, x: Any, y: Any) -> Any:
        return tf.linalg.global_norm(_gradients(self.model, x, y))


class _CheckNumerics(keras.callbacks.Callback):
    """TensorFlow's check of every operation, during this fit only."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Keras: a fit begins."""
        tf.debugging.enable_check_numerics()

    def on_train_end(self, logs: Any = None) -> None:
        """Keras: the fit is over."""
        tf.debugging.disable_check_numerics()


_CALLBACKS: dict[str, Callable[[str, Any], list[Any]]] = {
    "plain": lambda logdir, data: [],
    "record": lambda logdir, data: [
        GradWatch(logdir, on_nonfinite="record", xray_every_steps=0)
    ],
    "guard": lambda logdir, data: [GradWatch(logdir, xray_every_steps=0)],
    "default": lambda logdir, data: [GradWatch(logdir)],
    "own tape": lambda logdir, data: [OwnTape(data)],
    "TensorBoard": lambda logdir, data: [
        keras.callbacks.TensorBoard(logdir, update_freq=1)
    ],
    "check_numerics": lambda logdir, data: [_CheckNumerics()],
}
OURS = ("plain", "record", "guard", "default")
PEERS = ("own tape", "TensorBoard")
CHECKED = ("plain", "check_numerics")
"""Apart from the others: `enable_check_numerics` is for a whole process."""


def measure(
    workload: str, jit: bool, names: tuple[str, ...], plan: Plan
) -> dict[str, Any]:
    """Measures arms in turns; call it in a process of its own.

    Args:
        workload: of `WORKLOADS`.
        jit: `jit_compile` of the models.
        names: the arms, `plain` first.
        plan: how long.

    Returns:
        The settings; `steps` of a round; `wall` and `cpu`, seconds a step by
        arm and round, of all threads together; `operations` of the train
        function by arm; `gradient_bytes` and, in seconds, `gradient_pass`.
    """
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as logdir:
        arms = {name: _Arm(workload, jit, name, logdir) for name in names}
        operations = {name: arm.operations() for name, arm in arms.items()}
        costs: dict[str, list[Any]] = {name: [] for name in names}
        step = arms["plain"].train(_WARM_UP)[0]
        steps = max(plan.steps, plan.seconds / step) / plan.rounds / _EPOCHS
        for _ in range(plan.rounds):
            for name in random.permutation(names).tolist():
                costs[name].append(arms[name].train(math.ceil(steps)))
        wall, cpu = (
            {name: [float(cost[i]) for cost in costs[name]] for name in names}
            for i in range(2)
        )
        return {
            "workload": workload,
            "jit": jit,
            "steps": math.ceil(steps) * _EPOCHS,
            "wall": wall,
            "cpu": cpu,
            "operations": operations,
            **_gradient_pass(arms["plain"]),
        }


class _Arm:
    """A model, its data and what is trained along with it."""

    def __init__(
        self, workload: str, jit: bool, name: str, logdir: str
    ) -> None:
        keras.utils.set_random_seed(0)
        model, self.data = WORKLOADS[workload]()
        self.model = compiled(model, jit)
        self._callbacks = _CALLBACKS[name](logdir, self.data)

    def train(self, steps: int) -> NDArray[np.float64]:
        """Trains epochs of `steps`; returns wall and CPU seconds a step.

        The first epoch is left out: it makes the iterator, and it leaves as
        much to worker threads as the last epoch does.
        """
        clock = _Clock()
        self.model.fit(
            self.data,
            epochs=1 + _EPOCHS,
            steps_per_epoch=steps,
            verbose=0,
            shuffle=False,
            callbacks=[*self._callbacks, clock],
        )
        return (clock.ended - clock.begun) / (_EPOCHS * steps)

    def operations(self) -> int:
        """Traces; returns the operations of the train function, optimized."""
        with collect_graphs() as graphs:
            self.train(_WARM_UP)
        return max(
            len(graph.node)
            + sum(len(f.node_def) for f in graph.library.function)
            for graph in graphs
        )


class _Clock(keras.callbacks.Callback):
    """Wall and CPU time from the second epoch on."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keras: an epoch begins."""
        if epoch == 1:
            self.begun = self._now()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keras: an epoch is over."""
        self.ended = self._now()

    def _now(self) -> NDArray[np.float64]:
        return np.array([time.perf_counter(), time.process_time()])


def _gradients(model: Any, x: Any, y: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x, training=True))
    return tape.gradient(loss, model.trainable_variables)


def _gradient_pass(arm: _Arm) -> dict[str, Any]:
    """What reading every gradient once costs, the least that a norm needs."""
    gradients = _gradients(arm.model, *next(iter(arm.data)))
    values = [getattr(g, "values", g) for g in gradients]  # rows, if sparse
    options = {"jit_compile": arm.model.jit_compile}
    norm = tf.function(
        lambda *each: tf.add_n([tf.nn.l2_loss(v) for v in each]), **options
    )
    nothing = tf.function(lambda *each: tf.constant(0.0), **options)
    return {
        "gradient_bytes": sum(v.dtype.size * int(tf.size(v)) for v in values),
        "gradient_pass": max(
            0.0, _seconds(norm, values) - _seconds(nothing, values)
        ),
    }


def _seconds(
    function: Callable[..., Any], values: Sequence[Any], calls: int = 200
) -> float:
    function(*values)
    seconds = []
    for _ in range(calls):
        begun = time.perf_counter()
        function(*values).numpy()
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds))

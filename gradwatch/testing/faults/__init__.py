"""Faults for a team's own tests: callbacks that break any model's real `fit`.

`model.fit(x, y, callbacks=[watch, NanBatch(at_step=50)])` trains any model on
any data, and at step 50 something goes wrong. `Fault` is what they share.
"""

from gradwatch.testing.faults.between import (
    Crash,
    InfWeight,
    Kill,
    LearningRate,
    ZeroedLayer,
)
from gradwatch.testing.faults.data import (
    Float16Overflow,
    Hang,
    NanBatch,
    SlowSteps,
)
from gradwatch.testing.faults.fault import Fault

__all__ = [
    "Crash",
    "Fault",
    "Float16Overflow",
    "Hang",
    "InfWeight",
    "Kill",
    "LearningRate",
    "NanBatch",
    "SlowSteps",
    "ZeroedLayer",
]

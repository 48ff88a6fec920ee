"""The zoo: all scenarios, as plain tuples."""

from __future__ import annotations

from gradwatch.testing import (
    components,
    depth,
    diverging,
    gradient_flow,
    healthy_digits,
    healthy_nets,
    healthy_numbers,
    healthy_objectives,
    healthy_others,
    healthy_scripts,
    healthy_tables,
    nonfinite,
    outputs,
    rates,
    scales,
    stalled,
    swinging,
    targets,
    units,
    updates,
)
from gradwatch.testing.scenario import Scenario

__all__ = ["FAULTY", "HEALTHY", "SCENARIOS"]

FAULTY: tuple[Scenario, ...] = (
    *gradient_flow.FAULTY,
    *depth.FAULTY,
    *diverging.FAULTY,
    *nonfinite.FAULTY,
    *rates.FAULTY,
    *swinging.FAULTY,
    *units.FAULTY,
    *updates.FAULTY,
    *stalled.FAULTY,
    *scales.FAULTY,
    *components.FAULTY,
    *outputs.FAULTY,
    *targets.FAULTY,
)
"""Programs with a fault: a rule must name it."""

HEALTHY: tuple[Scenario, ...] = (
    *healthy_digits.HEALTHY,
    *healthy_nets.HEALTHY,
    *healthy_scripts.HEALTHY,
    *healthy_tables.HEALTHY,
    *healthy_numbers.HEALTHY,
    *healthy_objectives.HEALTHY,
    *healthy_others.HEALTHY,
    *swinging.HEALTHY,
)
"""Programs about which no rule may say more than `info`."""

SCENARIOS: tuple[Scenario, ...] = (*FAULTY, *HEALTHY)

"""All that was measured, as one frozen record; what could not be measured is None here and named in `skipped`."""

from __future__ import annotations

from dataclasses import dataclass, field

from unstuck.probes.activations import Activations
from unstuck.probes.anatomy import Anatomy
from unstuck.probes.history import History
from unstuck.probes.level import Level
from unstuck.probes.rates import Rates
from unstuck.problem import Loop, OptimizerRecipe, Problem


@dataclass(frozen=True)
class Evidence:
    """The records of the probes. `problem` is None where the loss could not be replayed: then only `loop` is known."""

    loop: Loop
    problem: Problem | None = None
    recipe: OptimizerRecipe | None = None
    history: History | None = None
    level: Level | None = None
    anatomy: Anatomy | None = None
    activations: Activations | None = None
    rates: Rates | None = None
    seconds: dict[str, float] = field(default_factory=dict)

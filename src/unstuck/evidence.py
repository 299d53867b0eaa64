"""All that was measured, as one frozen record; what could not be measured is None here and named in `skipped`."""

from __future__ import annotations

from dataclasses import dataclass, field

from unstuck.loop import Loop
from unstuck.probes.activations import Activations
from unstuck.probes.anatomy import Anatomy
from unstuck.probes.averaging import Averaging
from unstuck.probes.curvature import Curvature
from unstuck.probes.data import Data
from unstuck.probes.generalization import Generalization
from unstuck.probes.gradients import Gradients
from unstuck.probes.history import History
from unstuck.probes.labels import Labels
from unstuck.probes.level import Level
from unstuck.probes.loss import Loss
from unstuck.probes.noise import Noise
from unstuck.probes.normalization import Normalization
from unstuck.probes.numbers import Numbers
from unstuck.probes.objective import Objective
from unstuck.probes.one_batch import OneBatch
from unstuck.probes.order import Order
from unstuck.probes.rates import Rates
from unstuck.probes.reach import Reach
from unstuck.probes.redraw import Redraw
from unstuck.probes.references import References
from unstuck.problem import Problem
from unstuck.recipe import OptimizerRecipe


@dataclass(frozen=True)
class Evidence:
    """The records of the probes. `problem` is None where the loss could not be replayed: then only `loop` is known."""

    loop: Loop
    problem: Problem | None = None
    recipe: OptimizerRecipe | None = None
    history: History | None = None
    level: Level | None = None
    anatomy: Anatomy | None = None
    data: Data | None = None
    objective: Objective | None = None
    loss: Loss | None = None
    activations: Activations | None = None
    gradients: Gradients | None = None
    rates: Rates | None = None
    generalization: Generalization | None = None
    labels: Labels | None = None
    one_batch: OneBatch | None = None
    redraw: Redraw | None = None
    references: References | None = None
    normalization: Normalization | None = None
    numbers: Numbers | None = None
    order: Order | None = None
    reach: Reach | None = None
    noise: Noise | None = None
    averaging: Averaging | None = None
    curvature: Curvature | None = None
    seconds: dict[str, float] = field(default_factory=dict)

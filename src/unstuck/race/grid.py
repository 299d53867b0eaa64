"""What a race over settings tries: every optimizer with every learning rate and batch size.

    grid(problem, ("sgd", "adam"), rates("1e-4:1:13"), (16, 64))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unstuck.errors import BadArgument
from unstuck.optim.rules import RULES
from unstuck.problem import Problem, batch_size, samples_a_batch
from unstuck.recipe import OptimizerRecipe
from unstuck.remedies.batches import rebatched

NAMES = tuple(rule.name for rule in RULES)
ROLLING = {"momentum": 0.9}
"""What the rules `momentum` and `nesterov` have to be told in torch."""


@dataclass(frozen=True)
class Setting:
    """An optimizer by its rule's name, a learning rate, and a batch size (0: as it is)."""

    optimizer: str
    lr: float
    batch_size: int = 0

    @property
    def options(self) -> dict[str, object]:
        """What torch's class is to be given beside the learning rate."""
        rule = next(rule for rule in RULES if rule.name == self.optimizer)
        return {**(ROLLING if self.optimizer in {"momentum", "nesterov"} else {}), **rule.options}

    def code(self, model: str = "model") -> str:
        """The line that a user would write."""
        rule = next(rule for rule in RULES if rule.name == self.optimizer)
        rest = "".join(f", {name}={value}" for name, value in self.options.items())
        return f"optimizer = torch.optim.{rule.counterpart.__name__}({model}.parameters(), lr={self.lr:.3g}{rest})"

    def __str__(self) -> str:
        size = f", batches of {self.batch_size}" if self.batch_size else ""
        return f"{self.optimizer}, lr {self.lr:.3g}{size}"


def rates(text: str) -> tuple[float, ...]:
    """Learning rates: `1e-4:1:13` (from, to, how many, evenly spaced in the logarithm) or `0.1,0.01`.

    Raises BadArgument for anything else, and for rates that are not positive and finite.

    >>> rates("0.01:1:3"), rates("0.5,0.1")
    ((0.01, 0.1, 1.0), (0.5, 0.1))
    """
    try:
        if ":" in text:
            first, last, count = text.split(":")
            low, high, many = float(first), float(last), int(count)
            found = [_round(low * (high / low) ** (k / max(many - 1, 1))) for k in range(many)]
        else:
            found = [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError, TypeError):
        found = []
    if not found or not all(isinstance(rate, float) and rate > 0 and math.isfinite(rate) for rate in found):
        raise BadArgument(
            f"race: `lr` must be rates such as 0.1,0.01 or a range such as 1e-4:1:13 (from, to, how many), got {text!r}"
        )
    return tuple(dict.fromkeys(found))


def _round(value: float) -> float:
    return float(f"{value:.3g}")


def grid(
    problem: Problem, optimizers: Sequence[str], lrs: Sequence[float], sizes: Sequence[int] = ()
) -> tuple[Setting, ...]:
    """Every combination, in the order given; `sizes` left out: the problem's own.

    Raises BadArgument for an optimizer there is no rule for, or a batch size that the data do not allow.
    """
    unknown = [name for name in optimizers if name not in NAMES]
    if unknown or not optimizers:
        raise BadArgument(f"race: `optimizers` must be some of {', '.join(NAMES)}, got {', '.join(unknown) or 'none'}")
    present = samples_a_batch(problem)
    for size in sizes:
        _resized(problem, size, present)
    return tuple(
        Setting(*each) for each in itertools.product(optimizers, lrs, tuple(dict.fromkeys(sizes)) or (present,))
    )


def lanes(problem: Problem, settings: Sequence[Setting]) -> list[tuple[list[int], list[Problem]]]:
    """For each batch size the places of its settings and their problems, which share one signature."""
    present = samples_a_batch(problem)
    calm = replace(problem, loop=replace(problem.loop, schedule=()))
    groups = []
    for size in dict.fromkeys(setting.batch_size for setting in settings):
        base = _resized(calm, size or present, present)
        places = [k for k, setting in enumerate(settings) if setting.batch_size == size]
        groups.append((places, [with_optimizer(base, settings[k]) for k in places]))
    return groups


def with_optimizer(problem: Problem, setting: Setting) -> Problem:
    """The problem with the setting's optimizer over the parameters its own holds (all of them where it has none)."""
    rule = next(rule for rule in RULES if rule.name == setting.optimizer)
    names = tuple(name for name, p in problem.model.named_parameters() if p.requires_grad)
    held = problem.optimizer or OptimizerRecipe(rule.counterpart, (({}, names),))
    return replace(problem, optimizer=held.using(rule.counterpart, lr=setting.lr, **setting.options))


def _resized(problem: Problem, size: int, present: int) -> Problem:
    if size == present:
        return problem
    if size < 1:
        raise BadArgument(f"race: `batch_size` must be at least 1, got {size}")
    try:
        return rebatched(problem, size)
    except BadArgument:
        samples = sum(batch_size(batch) for batch in problem.data)
        raise BadArgument(
            f"race: `batch_size` {size} is too large for the {samples} training samples at hand, or their batches "
            f"cannot be cut; at most {samples // 2}"
        ) from None

"""What a rule is: a lesson, how the cause is told, what cures it, and a pure function from Evidence to a Suspicion."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.remedy import Remedy


@dataclass(frozen=True)
class Suspicion:
    """A cause with its evidence, before the race has spoken.

    strength   in [0, 1], how sure the rule is by itself: it decides who races, not the final rank
    fault      True: wrong whatever the result (a call that cannot be meant so). False: a matter of degree, which is a
               problem only if changing it is seen to help
    """

    cause: str
    strength: float
    where: str
    summary: str
    evidence: tuple[Figure, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    fault: bool = False

    @property
    def lanes(self) -> tuple[tuple[str, Remedy], ...]:
        """Its remedies, each with the name that its lane in the race has."""
        return tuple((f"{self.cause}:{remedy.label}", remedy) for remedy in self.remedies)


@dataclass(frozen=True)
class Rule:
    """One cause. `needs` names the fields of Evidence that must be there for `judge` to be asked."""

    cause: str
    lesson: str
    told_by: str
    cures: str
    needs: tuple[str, ...]
    judge: Callable[[Evidence], Suspicion | None]


def any_of(evidence: Evidence, rules: Iterable[ModuleType]) -> bool:
    """True if one of these rule modules, asked with the evidence it needs, has a suspicion."""
    return any(
        all(getattr(evidence, need) is not None for need in module.RULE.needs)
        and module.RULE.judge(evidence) is not None
        for module in rules
    )

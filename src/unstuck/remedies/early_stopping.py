"""Stop where the validation loss was lowest."""

from __future__ import annotations

from dataclasses import replace

from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy


def stop_early(step: int, per_epoch: int = 0, risen: int = 0) -> Remedy:
    """No step after the first `step` ones (the rate is 0 from there); its effect shows in the held-out loss of a race
    of `risen` steps (at least 1.3 times `step`), where without it that loss has clearly risen again."""
    epochs = f" (about epoch {max(1, round(step / per_epoch))})" if per_epoch else ""
    return Remedy(
        "stop-early",
        f"stop after {step} steps{epochs}, where the validation loss is lowest",
        f"if step >= {step}: break  # or when the validation loss has not fallen for some epochs",
        lambda problem: _stopped(problem, step),
        on="loss",
        steps=max(risen, round(1.3 * step)),
    )


def _stopped(problem: Problem, step: int) -> Problem:
    course = problem.loop.schedule or (1.0,)
    kept = (course + course[-1:] * step)[:step]
    return replace(problem, loop=replace(problem.loop, schedule=(*kept, 0.0)))

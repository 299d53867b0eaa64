"""unstuck says why a neural network does not train, proves it on that network, and shows the cure working.

    Problem, examine            a training written down, and the report on it
    watch                       the report on a loop of your own
    critical, escape            the kind of point where a training stands, and the state past a saddle
    critical_points             those around it, of every kind
    tune                        the best optimizer, learning rate and batch size, by racing copies
    Report, Finding, Figure, Verdict   what a report is made of
    UnstuckError, BadArgument, NotReplayable, NotMeasurable   what can be raised

Names are loaded when first used, so that `unstuck --help` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unstuck.census import critical_points
    from unstuck.curvature.escape import escape
    from unstuck.diagnose import examine
    from unstuck.errors import BadArgument, NotMeasurable, NotReplayable, UnstuckError
    from unstuck.landscape import critical
    from unstuck.problem import Problem
    from unstuck.records import Figure, Finding, Report, Verdict
    from unstuck.run import watch
    from unstuck.tuning import tune

__all__ = [
    "BadArgument",
    "Figure",
    "Finding",
    "NotMeasurable",
    "NotReplayable",
    "Problem",
    "Report",
    "UnstuckError",
    "Verdict",
    "critical",
    "critical_points",
    "escape",
    "examine",
    "tune",
    "watch",
]

_HOME = {
    "Problem": "problem", "examine": "diagnose", "watch": "run", "Report": "records", "Finding": "records",
    "Figure": "records", "Verdict": "records", "UnstuckError": "errors", "BadArgument": "errors",
    "NotReplayable": "errors", "NotMeasurable": "errors", "critical": "landscape", "escape": "curvature.escape",
    "critical_points": "census", "tune": "tuning",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"unstuck.{_HOME[name]}"), name)
    raise AttributeError(f"module 'unstuck' has no attribute {name!r}")

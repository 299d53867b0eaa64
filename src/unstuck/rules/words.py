"""Words that several rules share."""

from __future__ import annotations

from collections.abc import Sequence

from unstuck.evidence import Evidence


def line(site: str) -> str:
    """`file:line` without the folders."""
    return site.rsplit("/", 1)[-1]


def model_name(evidence: Evidence) -> str:
    """The script's own name for the model."""
    return evidence.problem.model_name if evidence.problem is not None else "model"


def listed(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 7 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def layers_of(names: Sequence[str]) -> list[str]:
    """The layers that parameters of these names belong to, in order: `encoder.0.weight` → `encoder.0`."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))

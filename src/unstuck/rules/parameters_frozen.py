"""parameters-frozen: fresh parameters that the optimizer holds and that cannot get a gradient."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.probes.reach import structured
from unstuck.records import Figure
from unstuck.remedies.loop import unfreeze
from unstuck.rules.rule import Rule, Suspicion
from unstuck.rules.words import layers_of, listed, model_name

MUCH = 0.3
"""Share of a model's entries; a fixed random projection or positional code is less in the networks that use one."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Used, held, `requires_grad` False, and as random as at the start: nobody freezes those on purpose."""
    loop, reach = evidence.loop, evidence.reach
    if not loop.frozen:
        return None
    frozen = reach.named(loop.frozen) if reach is not None else ()
    frozen = tuple(p for p in frozen if p.used)
    if reach is not None and (not frozen or structured(frozen)):
        return None
    share = reach.share(frozen) if reach is not None else float("nan")
    names = tuple(p.name for p in frozen) or loop.frozen
    return Suspicion(
        cause="parameters-frozen",
        strength=min(0.95, 0.8 + 0.15 * share) if share >= MUCH else 0.6,
        where=listed(layers_of(names)),
        summary=f"{listed(layers_of(names))} stay as they were initialized: requires_grad is False, though the "
        "optimizer holds them and they were never trained.",
        evidence=(
            Figure("frozen parameters", float(len(names))),
            Figure("their share of the model", share),
            *(
                Figure(f"largest singular value of {p.name} / of its entries mixed", p.structure)
                for p in sorted(frozen, key=lambda p: -p.entries)[:1]
            ),
        ),
        remedies=(unfreeze(names, model_name(evidence)),),
        fault=share >= MUCH,
    )


RULE = Rule(
    cause="parameters-frozen",
    lesson="requires_grad=False keeps a parameter as it is. That is right for weights which were trained before; fresh "
    "ones stay random for ever, and the rest of the network learns on random features.",
    told_by="The optimizer holds parameters with requires_grad False whose matrices still have the spectrum of a fresh "
    "initialization (training makes singular values stand out).",
    cures="requires_grad_(True), or load the pretrained weights that were meant to be there.",
    needs=(),
    judge=judge,
)

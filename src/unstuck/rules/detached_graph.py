"""detached-graph: on the way from parameters to the loss, values were taken without their history."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.probes.reach import Cut, Parameter, Reach, structured
from unstuck.records import Figure
from unstuck.remedies.loop import attach
from unstuck.remedies.remedy import Remedy
from unstuck.rules.rule import Rule, Suspicion
from unstuck.rules.words import layers_of, line, listed


def judge(evidence: Evidence) -> Suspicion | None:
    """The loss has no path to the model at all; or held, fresh, used parameters have none, and a call cuts theirs."""
    if evidence.loop.detached:
        return _whole(evidence)
    if evidence.reach is None:
        return None
    lost = _lost(evidence, evidence.reach)
    cuts = [c for c in evidence.reach.cuts if c.upstream.intersection(p.name for p in lost)]
    # A frozen backbone run under no_grad is meant so: it was trained before.
    if not lost or not cuts or structured(lost):
        return None
    names = [p.name for p in lost]
    last = cuts[-1]
    return Suspicion(
        cause="detached-graph",
        strength=0.97,
        where=last.where,
        summary=f"{_named(last)} at {last.where} cuts the graph: no gradient reaches {listed(layers_of(names))}, which "
        "the optimizer is meant to train.",
        evidence=(
            Figure("parameters without a gradient", float(len(lost)), samples=len(evidence.reach.parameters)),
            Figure("their share of the model", evidence.reach.share(lost)),
            Figure("calls that cut the graph", float(len(cuts))),
        ),
        remedies=(_remedy(cuts),),
        fault=True,
    )


def _lost(evidence: Evidence, reach: Reach) -> tuple[Parameter, ...]:
    """Held, trainable and used parameters the loss does not reach, here and in every step that was looked at."""
    watched = evidence.loop.backwards > 0
    flat = frozenset().union(*(c.upstream for c in reach.cuts if c.flat)) if reach.cuts else frozenset()
    return tuple(
        p
        for p in reach.parameters
        if p.held
        and p.trainable
        and p.used
        and (
            (math.isnan(p.gradient) and (not watched or p.name in evidence.loop.without_gradient))
            or (p.gradient == 0 and p.name in flat)
        )
    )


def _named(cut: Cut) -> str:
    return {"data": ".data", "no_grad": "torch.no_grad()"}.get(cut.name, f"{cut.name}()")


def _remedy(cuts: list[Cut]) -> Remedy:
    keys = [key for c in cuts if c.undone for key in c.keys]
    calls = listed([f"{_named(c)} ({line(c.site)})" for c in cuts])
    return attach(keys, "keep the graph from the parameters to the loss", f"leave out {calls}; compute it with torch")


def _whole(evidence: Evidence) -> Suspicion:
    loop, reach = evidence.loop, evidence.reach
    cuts = [c for c in reach.cuts if c.undone] if reach is not None and not reach.loss_has_graph else []
    code = f"leave out {listed([_named(c) for c in cuts])}" if cuts else "call backward() on the criterion's own result"
    return Suspicion(
        cause="detached-graph",
        strength=0.99,
        where=line(loop.loss_site),
        summary=f"backward() reaches no parameter: {loop.detached}.",
        evidence=(
            Figure("backward passes", float(loop.backwards)),
            Figure("parameters without a gradient", float(len(loop.without_gradient))),
            *(
                (Figure("loss at the start", loop.losses[0]), Figure("loss at the end", loop.losses[-1]))
                if loop.losses
                else ()
            ),
        ),
        remedies=(
            attach(
                [key for c in cuts for key in c.keys],
                "call backward() on the loss itself, not on a tensor made of its value",
                code,
            ),
        ),
        fault=True,
    )


RULE = Rule(
    cause="detached-graph",
    lesson="A gradient follows the calls that made the loss. detach(), .data, .numpy(), .item(), argmax() or a "
    "torch.no_grad() block hand on values without that history: what lies before them is never trained.",
    told_by="Parameters that the optimizer holds and the forward pass uses get no gradient, and a call between them "
    "and the loss gives values without a graph.",
    cures="Leave the call out, or compute with torch what was computed with NumPy.",
    needs=(),
    judge=judge,
)

"""output-range-mismatch: the last activation cannot reach the targets."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.probes.activations import RECTIFIERS, SMOOTH, SQUASHERS
from unstuck.probes.anatomy import Anatomy
from unstuck.problem import Problem
from unstuck.records import Figure
from unstuck.remedies.objective import squared_error
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.rewrite import drop_call
from unstuck.rules.rule import Rule, Suspicion
from unstuck.trace import Seen

UNREACHABLE = 0.03
"""Share of the targets' variance beyond the range that costs more R² than `verdict.MATERIAL`; a scaler fitted on one
part of the data leaves less outside on the rest (0.001 on the tumour data scaled to ±0.9)."""

ACTIVATIONS = RECTIFIERS | SQUASHERS | SMOOTH | {"softmax", "clamp", "clamp_", "clip", "exp", "hardsigmoid"}


def judge(evidence: Evidence) -> Suspicion | None:
    """Intervention: with the last layer at any value from −10⁴ to 10⁴, part of the targets stays out of reach."""
    objective, problem, anatomy, data = evidence.objective, evidence.problem, evidence.anatomy, evidence.data
    assert objective is not None and problem is not None and anatomy is not None
    targets = data.targets if data is not None else None
    call = _activation(anatomy)
    probabilities = problem.criterion.kind == "bce_logits"  # binary_cross_entropy itself refuses such targets
    beyond = probabilities and targets is not None and (targets.low < -0.01 or targets.high > 1.01)
    if not objective.unreachable >= UNREACHABLE and not (beyond and _continuous(evidence)):
        return None
    where = call.where if call is not None else problem.criterion.site.rsplit("/", 1)[-1]
    low, high = (0.0, 1.0) if beyond else (objective.low, objective.high)
    return Suspicion(
        cause="output-range-mismatch",
        strength=0.96,
        where=where,
        summary=(f"{'The loss' if beyond else where} confines predictions to [{low:.3g}, {high:.3g}]")
        + (f", the targets run from {targets.low:.3g} to {targets.high:.3g}" if targets is not None else "")
        + ": no weights can reach them.",
        evidence=(
            Figure("lowest value the output can take", low, samples=objective.samples),
            Figure("highest value the output can take", high, samples=objective.samples),
            Figure("share of the targets' variance out of reach", objective.unreachable, samples=objective.samples),
            *([Figure("largest target", targets.high, samples=targets.samples)] if targets is not None else []),
        ),
        remedies=_remedies(problem, call, probabilities),
        fault=True,
    )


def _activation(anatomy: Anatomy) -> Seen | None:
    return next((c for c in reversed(anatomy.head) if c.name in ACTIVATIONS), None)


def _continuous(evidence: Evidence) -> bool:
    """Targets outside of [0, 1] that are no class codes such as −1 and 1 or 1 and 2 (those are wrong labels)."""
    target = evidence.anatomy.target if evidence.anatomy is not None else None
    return target is not None and bool((target != target.round()).any())


def _remedies(problem: Problem, call: Seen | None, probabilities: bool) -> tuple[Remedy, ...]:
    if probabilities:
        return (squared_error(problem),)
    if call is None:
        return ()
    return (
        drop_call(
            call.key,
            "drop-activation",
            f"leave out the {call.name} at {call.where}, so that outputs can take any value",
            f"remove {call.where}",
        ),
    )


RULE = Rule(
    cause="output-range-mismatch",
    lesson="A sigmoid ends at 0 and 1, a tanh at ±1, a ReLU at 0. Targets beyond stay out of reach, and outputs that "
    "strain towards them saturate, where gradients vanish.",
    told_by="With the last layer's output set to values from −10⁴ to 10⁴ the predictions stay in a range that leaves "
    "more than 3 % of the targets' variance outside.",
    cures="Leave the last activation out, or scale the targets into its range.",
    needs=("objective", "anatomy"),
    judge=judge,
)

"""eval-mode-training: the model is in eval mode while it is trained."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.loop import train_mode
from unstuck.rules.rule import Rule, Suspicion
from unstuck.rules.words import line, listed, model_name

MOST = 0.5
"""Share of the sampled steps: fine-tuning may end in eval mode, but seldom spends most of its steps there."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Most steps ran in eval mode, and layers that behave differently there were never trained otherwise."""
    loop, norms = evidence.loop, evidence.normalization
    if loop.eval_share <= MOST:
        return None
    # Normalization with the statistics of earlier training is kept in eval mode on purpose when fine-tuning.
    fresh = [n for n in norms.layers if n.fresh_start and n.tracks] if norms is not None else []
    if norms is not None and not fresh and not norms.dropout:
        return None
    layers = [n.path for n in fresh] or list(norms.dropout if norms is not None else ())
    return Suspicion(
        cause="eval-mode-training",
        strength=0.95 if fresh else 0.4,
        where=listed(layers) or line(loop.loss_site),
        summary=f"The model was in eval mode in {loop.eval_share:.0%} of its training steps: "
        + (
            "batch normalization does not normalize, and its statistics never follow the data."
            if fresh
            else "its dropout does nothing."
        ),
        evidence=(
            Figure("share of training steps in eval mode", loop.eval_share),
            Figure("normalization layers that never saw the data", float(len(fresh))),
            *(
                (Figure("score with the modes it trained in", evidence.level.train_mode.value),)
                if evidence.level
                else ()
            ),
        ),
        remedies=(train_mode(model_name(evidence)),),
        fault=bool(fresh),
    )


RULE = Rule(
    cause="eval-mode-training",
    lesson="model.eval() switches dropout off and lets batch normalization use its running statistics. A validation "
    "that does not switch back leaves the rest of the training so: layers are no longer normalized.",
    told_by="The model's flag was False in most sampled steps, and it has BatchNorm layers with fresh statistics.",
    cures="model.train() before each epoch.",
    needs=(),
    judge=judge,
)

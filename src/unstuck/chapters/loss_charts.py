"""The charts of the chapter on the loss: gradients sample by sample, what is left of them, and the race."""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.chapters.criteria import CROSS, own_name, squared
from unstuck.chapters.drawn import heights, lines
from unstuck.chapters.losses import Raced
from unstuck.probes.loss import DEAD, Loss, State
from unstuck.records import Chart, Curve

DOTS = 150
"""Samples drawn of a state."""
DECADES = ("under 0.0001", "0.0001 to 0.001", "0.001 to 0.01", "0.01 to 0.1", "0.1 and more")


def sent_charts(found: Loss) -> tuple[Chart, ...]:
    """Gradients by how wrong the predictions are, where the training was left; and what is left for the wrong ones."""
    end = found.end
    if end is None:
        return ()
    note = (
        "Each dot is a sample (a label of it). 0: the true class has p = 1/2; 4.6: p = 0.01; 9.2: p = 0.0001. "
        "Gradients are norms at the logits, of one sample's loss. A gradient of exactly 0 is not drawn."
    )
    title, across = "What the loss sends back, by how wrong the prediction is", "log-odds against the true class"
    dots = Chart(title, across, "gradient", _dots(found, end), log_y=True, dots=True, note=note)
    return dots, *_decades(end)


def _dots(found: Loss, state: State) -> tuple[Curve, ...]:
    """The present loss's and the closed forms' gradients; of those what the present loss is itself stands once."""
    shown = _shown(state)
    own = own_name(found)
    closed = ((CROSS, state.cross), (squared(found.task), state.squared))
    named = [*((name, y) for name, y in closed if not own.startswith(name)), (own, state.present)]
    return tuple(_dotted(name, state.odds[shown], y[shown]) for name, y in named)


def _shown(state: State) -> Tensor:
    """Places of samples evenly spaced by how wrong they are, the wrong ones not crowded out."""
    order = state.odds.argsort()
    wrong = order[state.missed[order]]
    return torch.cat([some[torch.linspace(0, len(some) - 1, min(DOTS // 2, len(some))).long()]
                      for some in (order[~state.missed[order]], wrong) if len(some)])  # fmt: skip


def _dotted(name: str, x: Tensor, y: Tensor) -> Curve:
    known = y > 0  # on a logarithmic axis there is no place for none at all
    return Curve(name, tuple(x[known].tolist()), tuple(y[known].tolist()))


def _decades(state: State) -> tuple[Chart, ...]:
    """How much of the gradient is left for wrong predictions, by decades: drawn where some have lost any."""
    kept = state.kept[state.missed]
    if not len(kept) or float(kept.min()) >= 0.1:
        return ()
    place = (kept.clamp_min(1e-5).log10() + 5).floor().clamp(0, 4).long()
    shares = torch.bincount(place, minlength=len(DECADES)).double() / len(kept)
    bars = heights(list(zip(DECADES, shares.tolist(), strict=True)))
    note = f"As a share of cross-entropy's, undecided predictions as 1 in both; under {DEAD:g} it is called dead."
    return (Chart("Gradient left for wrong predictions", "gradient left", "share of them", bars, bars=True, note=note),)


def race_charts(race: Raced) -> tuple[Chart, ...]:
    """Accuracy along the way, each loss at its best rate; and at the end by rate."""
    checks = [float(step) for step in race.checks]
    courses = tuple(lines(f"{r.name}, rate {r.best.rate:.2g}", checks, list(r.best.course)) for r in race.rivals)
    by_rate = tuple(lines(r.name, [x.rate for x in r.lanes], [x.end for x in r.lanes]) for r in race.rivals)
    note = f"{race.samples} samples; mean over {race.plan.seeds} seeds with ± two standard errors."
    at_rates = f"After {race.plan.steps} updates, by learning rate"
    return (
        Chart("Losses from the same start, each at its best rate", "update", race.metric, courses, note=note),
        Chart(f"{at_rates} and loss", "learning rate", race.metric, by_rate, log_x=True, note=note),
    )

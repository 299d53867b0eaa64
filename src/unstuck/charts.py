"""From evidence and race to the charts of the report."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.race.race import Race
from unstuck.records import Chart, Curve, Figure

POINTS = 400


def charts(evidence: Evidence, race: Race | None) -> tuple[Chart, ...]:
    """Loss with its reference levels, activations by layer, learning rates tried, race curves."""
    made = (_loss(evidence), _activations(evidence), *_gradients(evidence), _rates(evidence), _race(race))
    return tuple(chart for chart in made if chart is not None)


def _loss(evidence: Evidence) -> Chart | None:
    losses = evidence.loop.losses
    if len(losses) < 2:
        return None
    stride = max(1, len(losses) // POINTS)
    kept = [(float(i), losses[i]) for i in range(0, len(losses), stride)]
    levels = _levels(evidence)
    curve = Curve("loss", tuple(x for x, _ in kept), tuple(y for _, y in kept))
    return Chart("The loss, as the script saw it", "backward pass", "loss", (curve,), levels)


LOGARITHMIC, SQUARED = {"cross_entropy", "nll", "bce", "bce_logits"}, {"mse"}


def _levels(evidence: Evidence) -> tuple[Figure, ...]:
    """The loss of a constant prediction, and of the references where their loss is the script's own."""
    levels = []
    if evidence.level is not None and math.isfinite(evidence.level.chance_loss):
        levels.append(Figure("best constant prediction", evidence.level.chance_loss))
    references, problem = evidence.references, evidence.problem
    if references is not None and problem is not None:
        same = LOGARITHMIC if references.metric == "accuracy" else SQUARED
        known = [m for m in references.models if math.isfinite(m.loss) and problem.criterion.kind in same]
        levels += [Figure(f"{m.name}, on samples it did not see", m.loss) for m in known]
    return tuple(levels)


def _activations(evidence: Evidence) -> Chart | None:
    if evidence.activations is None or not evidence.activations.last:
        return None
    bars = tuple(Curve(a.where, (0.0,), (a.rms,)) for a in evidence.activations.last)
    return Chart("Scale of activations, layer by layer", "layer", "root mean square", bars, bars=True, log_y=True)


def _gradients(evidence: Evidence) -> tuple[Chart, ...]:
    """Gradient of each layer's output, in the order of the forward pass; and the step of each layer's weights."""
    gradients = evidence.gradients
    if gradients is None:
        return ()
    signals = tuple(Curve(s.where, (0.0,), (s.norm,)) for s in gradients.last.signals if math.isfinite(s.norm))
    steps = tuple(Curve(a.where, (0.0,), (a.step,)) for a in gradients.last.layers if math.isfinite(a.step))
    charts = (
        Chart("Gradient of each layer's output", "layer", "norm", signals, bars=True, log_y=True),
        Chart("One step of each layer's weights", "layer", "step / weights", steps, bars=True, log_y=True),
    )
    return tuple(chart for chart in charts if chart.curves)


def _rates(evidence: Evidence) -> Chart | None:
    rates = evidence.rates
    if rates is None:
        return None
    curve = Curve(f"after {rates.steps} steps", rates.rates, rates.losses)
    levels = (Figure("before any step", rates.initial),)
    return Chart("Learning rates tried on a copy", "learning rate", "loss", (curve,), levels, log_x=True, log_y=True)


def _race(race: Race | None) -> Chart | None:
    if race is None or not race.curves:
        return None
    return Chart("The race: as it is, and with each remedy", "step", race.metric, race.curves)

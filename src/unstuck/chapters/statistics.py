"""What the chapter on normalization says and draws of the layers' statistics.

    said(found, sized), drawn(found, sized), figures(found)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from unstuck.chapters.drawn import heights, lines
from unstuck.probes.normalization import Layer, Normalization
from unstuck.probes.statistics import LEFT, Noise, Sized, steadiness
from unstuck.race.trials import Level
from unstuck.records import Chart, Figure

T = TypeVar("T")
DRAWN, LISTED = 4, 16
"""Layers in a chart of lines, and in one of bars or a list, at most; evenly spaced through depth."""
NONE = 1e-3
"""A share below this is said to be none."""
CERTAIN = 2.0
"""Standard errors from which a difference is said to be one."""


def said(found: Normalization, sized: Sized) -> list[str]:
    """The sentences: modes, running against batch statistics, momentum, noise, evaluation against training."""
    return [*_modes(found), *_distances(found), *_momenta(found), *_noise(found, sized), *_gap(found), *_ragged(found)]


def drawn(found: Normalization, sized: Sized) -> tuple[Chart, ...]:
    """Noise of the batch mean by batch size; running against batch statistics, layer by layer."""
    return *_noise_chart(found, sized), *_distance_charts(found)


def _modes(found: Normalization) -> list[str]:
    many = len(found.layers)
    frozen = [layer for layer in found.layers if not layer.trains]
    untracked = [layer for layer in found.layers if not layer.tracks]
    single = [layer for layer in found.layers if layer.count == 1]
    said = [f"{many} BatchNorm layer{'s' if many > 1 else ''}, batches of {found.batch}."]
    if frozen:
        fresh = sum(layer.fresh_end for layer in frozen)
        kept = f", {fresh} with the mean 0 and variance 1 they were made with" if fresh else ""
        said.append(f"Frozen while the model trains: {_named(frozen)}{kept}.")
    if untracked:
        said.append(f"Without running statistics, so that a prediction depends on its batch in evaluation too: "
                    f"{_named(untracked)}.")  # fmt: skip
    if single:
        said.append(f"One value a channel, which normalizes to nothing: {_named(single)}.")
    return [" ".join(said)]


def _named(layers: Sequence[Layer]) -> str:
    return "layer " + layers[0].path + (f" and {len(layers) - 1} more" if len(layers) > 1 else "")


def _distances(found: Normalization) -> list[str]:
    known = [(layer, layer.distance) for layer in found.layers if layer.distance is not None]
    if not known:
        return []
    layer, off = max(known, key=lambda pair: pair[1].mean)
    other, ratio = max(known, key=lambda pair: abs(math.log(max(pair[1].variance, 1e-30))))
    return [f"Running against batch statistics: the means lie {pm(off.mean, off.mean_error)} standard deviations off "
            f"in layer {layer.path}, the variances are {pm(ratio.variance, ratio.variance_error)} times the batches' "
            f"in layer {other.path}" + ("; nowhere further." if len(known) > 1 else ".")]  # fmt: skip


def _momenta(found: Normalization) -> list[str]:
    """What the momentum makes of the steps that there were: of the layer with most of its start left."""
    known = [layer for layer in found.layers if layer.trains and layer.tracks and layer.updates > 0]
    if not known:
        return []
    layer = max(known, key=lambda one: one.left)
    kind = f"Momentum {layer.momentum:g}" if layer.momentum is not None else "Plain averages"
    share = f"{layer.left:.1%}" if layer.left > NONE else "none"
    verdict = ", too much for the steps made" if layer.left > LEFT else ""
    return [f"{kind} over {layer.updates} batches: of the running statistics {share} is still their start{verdict}. "
            f"They have {steadiness(layer.momentum, layer.updates):.2g} of one batch's noise."]  # fmt: skip


def _noise(found: Normalization, sized: Sized) -> list[str]:
    known = [(layer, layer.spread) for layer in found.layers if layer.spread is not None and layer.spread.mean > 0]
    if not known:
        return []
    layer, spread = max(known, key=lambda pair: pair[1].mean)
    moves = pm(spread.mean, spread.mean_error)
    said = [f"From batch to batch the mean of layer {layer.path} moves by {moves} standard deviations, as that of "
            f"{spread.worth:.3g} independent values would (it has {spread.count}); its variance by "
            f"{pm(spread.variance, spread.variance_error)} of itself."]  # fmt: skip
    others = [f"{one.mean:.2g} of {one.size}" for one in sized.layers.get(layer.path, ())]
    said += [f"In batches of other sizes the mean moves by {', '.join(others)}."] if others else []
    return said + [f"Batches of {size} cannot be normalized ({why})." for size, why in sized.refused[:1]]


def _gap(found: Normalization) -> list[str]:
    gap, own, running, again = found.gap, found.by_batch, found.by_running, found.recalibrated
    if gap is None or own is None or running is None:
        return []
    told = abs(gap.score) > CERTAIN * gap.score_error or abs(gap.loss) > CERTAIN * gap.loss_error
    verdict = "" if told else ": no difference beyond chance"
    said = [f"On the same samples evaluation mode changes the loss by {pm(gap.loss, gap.loss_error)} and the "
            f"{own.metric} by {pm(gap.score, gap.score_error)}, from {own.value:.3g} by batch statistics to "
            f"{running.value:.3g} by running ones{verdict}."]  # fmt: skip
    if again is not None:
        said.append(f"With statistics averaged anew over the data it is {again.value:.3g}.")
    return [" ".join(said)]


def _ragged(found: Normalization) -> list[str]:
    if not found.ragged:
        return []
    return [f"The smallest batch seen holds {found.ragged} of {found.batch} samples: it moves the running statistics "
            f"as much as a whole one, with {math.sqrt(found.batch / found.ragged):.2g} times the noise "
            "(drop_last=True leaves it out)."]  # fmt: skip


def figures(found: Normalization) -> tuple[Figure, ...]:
    """Noise of each layer's mean, and what evaluation mode costs."""
    made = []
    for layer in _chosen(found.layers, LISTED):
        if layer.spread is not None:
            noise, error = layer.spread.mean, finite(layer.spread.mean_error)
            made.append(Figure(f"noise of the batch mean of layer {layer.path}", noise, "σ", error))
    if found.gap is not None:
        gap = found.gap
        made.append(Figure("change of the loss in evaluation mode", gap.loss, error=finite(gap.loss_error)))
        made.append(Figure("change of the score in evaluation mode", gap.score, error=finite(gap.score_error)))
    return tuple(made)


def _noise_chart(found: Normalization, sized: Sized) -> tuple[Chart, ...]:
    paths = _chosen([layer.path for layer in found.layers if len(sized.layers.get(layer.path, ())) > 1], DRAWN)
    if not paths:
        return ()
    curves = [lines(path, *_points(sized.layers[path])) for path in paths]
    sizes = sorted({one.size for path in paths for one in sized.layers[path]})
    curves.append(lines("1/√batch", [float(b) for b in sizes], [Level(1 / math.sqrt(b), 0.0, 1) for b in sizes]))
    note = "In standard deviations of a channel, ± two standard errors; 1/√batch: one independent value a sample."
    title = "How far the batch's mean moves from batch to batch"
    return (Chart(title, "batch size", "standard deviations", tuple(curves), log_x=True, log_y=True, note=note),)


def _points(noises: Sequence[Noise]) -> tuple[list[float], list[Level]]:
    known = [one for one in noises if one.mean > 0]
    errors = [one.mean_error if math.isfinite(one.mean_error) else 0.0 for one in known]
    levels = [Level(one.mean, error, one.batches) for one, error in zip(known, errors, strict=True)]
    return [float(one.size) for one in known], levels


def _chosen(layers: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly spaced, the first and the last among them."""
    if len(layers) <= most:
        return list(layers)
    return [layers[round(k * (len(layers) - 1) / (most - 1))] for k in range(most)]


def _distance_charts(found: Normalization) -> tuple[Chart, ...]:
    known = [(layer.path, layer.distance) for layer in _chosen(found.layers, LISTED) if layer.distance is not None]
    if not known:
        return ()
    means = heights([(path, off.mean) for path, off in known])
    ratios = heights([(path, off.variance) for path, off in known])
    note = "Root mean square over channels; 0 where the running means are the batches'."
    same = (Figure("the same", 1.0),)
    return (
        Chart("Running means off the batches'", "layer", "standard deviations", means, bars=True, note=note),
        Chart("Running variances over the batches'", "layer", "ratio", ratios, same, bars=True, log_y=True),
    )


def finite(value: float) -> float | None:
    """The value, or None for what is not finite."""
    return value if math.isfinite(value) else None


def pm(value: float, error: float) -> str:
    """As it is said: 0.52 ± 0.03; without the error where that is unknown."""
    return f"{value:.2g} ± {error:.1g}" if math.isfinite(error) else f"{value:.2g}"

"""parameters-not-optimized: parameters get gradients, and no optimizer holds them."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.probes.reach import Parameter, structured
from unstuck.records import Figure
from unstuck.remedies.loop import hold, make_once
from unstuck.rules.rule import Rule, Suspicion
from unstuck.rules.words import layers_of, listed, model_name


def judge(evidence: Evidence) -> Suspicion | None:
    """Parameters the loss reaches, fresh from their initialization, that are in no optimizer's groups."""
    loop, reach = evidence.loop, evidence.reach
    if loop.by_hand or not loop.stepping:
        return None
    if reach is not None and reach.anew:
        return _anew(reach.anew)
    if not loop.unheld:
        return None
    lacking = reach.named(loop.unheld) if reach is not None else ()
    lacking = tuple(p for p in lacking if p.used and p.gradient > 0)
    # Weights that were trained before and are left out of the optimizer are meant to stay as they are.
    if reach is not None and (not lacking or structured(lacking)):
        return None
    names = tuple(p.name for p in lacking) or loop.unheld
    why = _why(evidence, names)
    return Suspicion(
        cause="parameters-not-optimized",
        strength=0.96,
        where=listed(layers_of(names)),
        summary=f"{listed(layers_of(names))} get gradients and are never updated: {why}.",
        evidence=_figures(evidence, lacking, names),
        remedies=(hold(names, _code(evidence, names)),),
        fault=True,
    )


def _why(evidence: Evidence, names: tuple[str, ...]) -> str:
    loop = evidence.loop
    if any(name in loop.hidden for name in names):
        return "they are kept in a plain list, dict or object, so model.parameters() does not list them"
    if loop.foreign and evidence.reach is not None and not any(p.held for p in evidence.reach.parameters):
        return "the optimizer holds the parameters of another model"
    if loop.foreign:
        return f"the optimizer holds {loop.foreign} tensors that are no longer part of the model"
    return "the optimizer was not given them"


def _code(evidence: Evidence, names: tuple[str, ...]) -> str:
    recipe = evidence.recipe
    cls = recipe.cls.__name__ if recipe is not None else "Adam"
    rate = f", lr={recipe.lr:.3g}" if recipe is not None else ""
    if any(name in evidence.loop.hidden for name in names):
        plain = names[0].split("[")[0].split(".")[-1]
        return f"self.{plain} = nn.ModuleList(self.{plain})  # before the optimizer is made"
    return (
        f"optimizer = torch.optim.{cls}({model_name(evidence)}.parameters(){rate})  # made last, of the model trained"
    )


def _figures(evidence: Evidence, lacking: tuple[Parameter, ...], names: tuple[str, ...]) -> tuple[Figure, ...]:
    figures = [Figure("parameters in no optimizer", float(len(names)))]
    if evidence.reach is not None:
        norm = math.sqrt(sum(p.gradient**2 for p in lacking))
        figures.append(Figure("their share of the model", evidence.reach.share(lacking)))
        figures.append(Figure("norm of their gradient at the start", norm))
    if evidence.loop.foreign:
        figures.append(Figure("tensors of the optimizer that are not the model's", float(evidence.loop.foreign)))
    return tuple(figures)


def _anew(places: tuple[str, ...]) -> Suspicion:
    return Suspicion(
        cause="parameters-not-optimized",
        strength=0.96,
        where=listed(places),
        summary=f"{listed(places)} makes new layers in every forward pass: their weights are random each time, and no "
        "optimizer holds them.",
        evidence=(Figure("places that use weights the model does not hold", float(len(places))),),
        remedies=(make_once(listed(places)),),
        fault=True,
    )


RULE = Rule(
    cause="parameters-not-optimized",
    lesson="An optimizer updates the tensors it was handed when it was made. A layer added or replaced later, one kept "
    "in a plain Python list, or the copy of a model that is trained instead of it, is not among them.",
    told_by="Parameters received gradients, still have the spectrum of a fresh initialization, and no optimizer that "
    "stepped holds them.",
    cures="Make the optimizer last, of the model that is trained; keep layers in nn.ModuleList.",
    needs=(),
    judge=judge,
)

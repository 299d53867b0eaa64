"""The logits of a network: where they are made in its loss, and the gradient that the loss sends back to them.

    site = site_of(problem, anatomy)
    found = sent(problem, problem.twin(), batch, site)
    found.logits, found.gradient, found.undecided       # [labels, classes] each

Logits are what the first softmax (or sigmoid) behind the last layer takes, or what a loss that applies its own is
given. Where the output is probabilities and nothing of that kind is seen, they are log p (softmax's inverse up to a
constant) or log p − log(1 − p), and the gradient is taken there by the chain rule. `undecided` is the gradient when all
logits are 0: the loss's own scale, with its weights, its reduction and any factor in it.

The loss is evaluated with a leaf of our own in the place of what makes the logits; so the gradient is the loss's, by
automatic differentiation, whatever stands between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstuck.errors import NotMeasurable
from unstuck.probes.anatomy import Anatomy
from unstuck.probes.objective import SHAPES, class_axis, form_of
from unstuck.problem import Batch, Problem, Result
from unstuck.rewriting import CallKey, operands
from unstuck.sandbox import reseed
from unstuck.trace import Seen, Trace

Link = Literal["softmax", "sigmoid"]
SQUASHES = {"softmax": "softmax", "log_softmax": "softmax", "sigmoid": "sigmoid", "sigmoid_": "sigmoid",
            "logsigmoid": "sigmoid"}  # fmt: skip
LINKS: dict[str, Link] = {"classes": "softmax", "onehot": "softmax", "binary": "sigmoid", "multilabel": "sigmoid"}
"""By the criterion's task: what makes probabilities of logits."""
DISTANCES = frozenset({"mse", "l1", "smooth_l1", "huber"})
ON_LOGITS = frozenset({"bce_logits", "soft_margin"})
RAW = frozenset({"logits", "scores"})
"""Forms that are read as they are: scores are compared with labels themselves, but could be taken for logits."""
TINY = 1e-12
SEED = 0


@dataclass(frozen=True)
class Site:
    """The call `key` makes what the logits are read from, of this form; `between` are the calls from there to the
    criterion that change values (in the order they run), `moved` is true where others change its shape. `axis`: where
    the criterion has the classes. `said`: the place in words."""

    key: CallKey
    form: str
    link: Link
    between: tuple[Seen, ...]
    moved: bool
    axis: int
    said: str


@dataclass(frozen=True)
class Sent:
    """Of some labels of one batch [n, classes] (one column for a sigmoid's): logits, the loss's gradient at them and
    where they all are 0, times the number of labels in the loss's mean; the targets. `labels` were given in all, the
    loss has a weight for `counted`."""

    logits: Tensor
    gradient: Tensor
    undecided: Tensor
    target: Tensor
    labels: int
    counted: int


def site_of(problem: Problem, seen: Anatomy) -> Site:
    """Where the logits are. Raises NotMeasurable where there are none to be had."""
    link = "sigmoid" if problem.criterion.kind == "soft_margin" else LINKS.get(problem.criterion.task)
    output, criterion = seen.output, seen.criterion
    if link is None or output is None or seen.target is None or criterion is None:
        raise NotMeasurable("there are no classes, so no logits")
    axis = class_axis(problem, output, seen.target) if link == "softmax" else -1
    first = next((k for k, call in enumerate(seen.head) if call.name in SQUASHES), None)
    after = seen.head[first:] if first is not None else ()
    if not after:
        maker, form = seen.trace.below(criterion, output), _form(problem, link, output, axis)
    else:
        if SQUASHES[after[0].name] == "softmax" and link == "sigmoid":
            raise NotMeasurable(f"a softmax ({after[0].where}) stands before labels that are each on their own")
        maker, form = _source(seen.trace, after[0]), "logits"
    if maker is None or not isinstance(maker.output, Tensor):
        raise NotMeasurable("what makes the outputs cannot be told")
    between = tuple(call for call in after if call.name not in SHAPES)
    return Site(maker.key, form, link, between, len(between) < len(after), axis, _said(maker, form, link))


def _source(trace: Trace, squash: Seen) -> Seen | None:
    taken = squash.args[0] if squash.args else squash.kwargs.get("input")
    return trace.below(squash, taken)


def _form(problem: Problem, link: Link, output: Tensor, axis: int) -> str:
    """What an output is that went through no softmax or sigmoid of torch's."""
    kind = problem.criterion.kind
    if link == "sigmoid":
        if kind in ON_LOGITS:
            return "logits"
        if kind == "bce":
            return "probabilities"
        if kind == "cross_entropy":
            raise NotMeasurable("a softmax over one output is 1 whatever the logit is: no gradient comes back")
        return "scores"
    form, along = form_of(output.detach(), axis)
    if form != "values" and along == axis:
        return form
    return "scores" if kind in DISTANCES else "logits"


def _said(maker: Seen, form: str, link: Link) -> str:
    if form in RAW:
        return f"the output of {maker.where}"
    taken = {"probabilities": "log p" if link == "softmax" else "log p − log(1 − p)", "log-probabilities": "log p"}
    return f"{taken[form]} of the output of {maker.where}"


def sent(problem: Problem, model: nn.Module, batch: Batch, site: Site, most: int) -> Sent:
    """At most so many of the batch's labels, evenly spaced. Two passes forward and back from the outputs, and one more
    forward where shapes change. Raises NotMeasurable where no gradient comes back, or labels do not fit outputs."""
    made, gradient, result = _backward(problem, model, batch, site)
    _, undecided, _ = _backward(problem, model, batch, site, neutral=True)
    place = _places(problem, model, batch, site, made)
    values, now, zero = (_rows(tensor.flatten()[place], site) for tensor in (made, gradient, undecided))
    if not values.isfinite().any():
        raise NotMeasurable("the outputs are not finite")
    target, valid = _targets(problem, result, site, values.shape)
    weighed = valid & (zero.abs().amax(1) > TINY * zero.abs().max()) & values.isfinite().all(1)
    kept, count = weighed.nonzero().flatten(), int(weighed.sum())
    if not count:
        raise NotMeasurable("the loss sends no gradient back to the outputs, whatever they are")
    kept = kept[torch.linspace(0, count - 1, min(most, count)).round().long()]
    x, t = values[kept].double(), target[kept].double()
    at = torch.full_like(x, _neutral(site, x.shape[1]))
    logits, slope = _through(x, now[kept].double(), site)
    _, flat = _through(at, zero[kept].double(), site)
    return Sent(logits, count * slope, count * flat, t, int(valid.sum()), count)


def _neutral(site: Site, classes: int) -> float:
    """What the outputs are when all logits are 0."""
    even = torch.tensor(1 / classes if site.link == "softmax" else 0.5, dtype=torch.float64)
    return {"probabilities": float(even), "log-probabilities": float(even.log())}.get(site.form, 0.0)


def _backward(
    problem: Problem, model: nn.Module, batch: Batch, site: Site, neutral: bool = False
) -> tuple[Tensor, Tensor, Result]:
    """What the site makes, or what it would make of logits 0, the loss's gradient there, and the evaluation."""
    leaves: list[Tensor] = []

    def put(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        made = function(*args, **kwargs).detach()
        classes = made.shape[site.axis] if site.link == "softmax" else 1
        made = torch.full_like(made, _neutral(site, classes)) if neutral else made.clone()
        leaves.append(made.requires_grad_())
        return made.clone()  # what follows may change it in place

    reseed(SEED)
    result = replace(problem, rewrites={**problem.rewrites, site.key: put}).evaluate(model, batch)
    if not leaves or not result.loss.requires_grad:
        raise NotMeasurable("the loss sends no gradient back to the outputs")
    (gradient,) = torch.autograd.grad(result.loss.mean(), leaves[0], allow_unused=True)
    if gradient is None:
        raise NotMeasurable("the loss sends no gradient back to the outputs")
    return leaves[0].detach(), gradient, result


class _Given(Exception):
    """Carries what the criterion was given, and ends the evaluation there."""


def _places(problem: Problem, model: nn.Module, batch: Batch, site: Site, made: Tensor) -> Tensor:
    """Where each entry of what the criterion is given stands in what the site makes: found by sending their numbers the
    same way, past all that changes values."""
    numbers = torch.arange(made.numel(), device=made.device).view(made.shape)
    if not site.moved:
        return numbers

    def end(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise _Given(operands(args, kwargs)[1 if problem.criterion.flipped else 0])

    def past(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return next(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor))

    key = problem.criterion.key
    assert key is not None
    rewrites = {**{call.key: past for call in site.between}, site.key: lambda *_: numbers.clone(), key: end}
    try:
        reseed(SEED)
        replace(problem, rewrites={**problem.rewrites, **rewrites}).value(model, batch)
    except _Given as given:
        found = given.args[0].long()
        if found.unique().numel() == found.numel():
            return found  # type: ignore[no-any-return]
    raise NotMeasurable("what stands between the logits and the loss cannot be followed")


def _rows(values: Tensor, site: Site) -> Tensor:
    """[labels, classes], or a column of labels that are each on their own."""
    if site.link == "sigmoid":
        return values.reshape(-1, 1)
    return values.movedim(site.axis, -1).reshape(-1, values.shape[site.axis])


def _targets(problem: Problem, result: Result, site: Site, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The targets in the form of the rows, and which of them name a class."""
    target, (rows, classes) = result.target, shape
    assert target is not None
    if problem.criterion.task == "classes":
        labels = target.flatten()
        hot, valid = labels.clamp(0, classes - 1), (labels >= 0) & (labels < classes)
        found = F.one_hot(hot.long(), classes)
    else:
        found = _rows(target, site)
        found = found > 0 if problem.criterion.kind == "soft_margin" else found
        logarithms = site.link == "softmax" and bool((found <= 0).all())  # kl_div with log_target
        found = found.exp() if logarithms else found
        valid = found.isfinite().all(1) if found.is_floating_point() else torch.ones(len(found)).bool().to(found.device)
    if found.shape != shape or len(valid) != rows:
        raise NotMeasurable(f"{len(found)} targets do not go with {rows} outputs one by one")
    return found, valid


def _through(values: Tensor, gradient: Tensor, site: Site) -> tuple[Tensor, Tensor]:
    """Logits of which these are the outputs, and the gradient at them by the chain rule:
    ∂p_j/∂z_k = p_j (δ_jk − p_k), ∂ log p_j/∂z_k = δ_jk − p_k; σ' = p (1 − p)."""
    if site.form in RAW:
        return values, gradient
    if site.form == "log-probabilities":
        return values, gradient - values.exp() * gradient.sum(1, keepdim=True)
    p = values.clamp(TINY, 1 - TINY)
    if site.link == "sigmoid":
        return p.log() - (-p).log1p(), p * (1 - p) * gradient
    return p.log(), p * (gradient - (p * gradient).sum(1, keepdim=True))

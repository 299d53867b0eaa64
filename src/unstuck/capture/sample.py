"""From the calls recorded in one step to what is kept: the tape of the loss, its batch, where the batch came from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.capture.seen import Form, Origin, Seen
from unstuck.errors import NotReplayable
from unstuck.recorder import Call, site
from unstuck.tape import Linked, cut, descends, link, tensors_in

FORMS = 6
"""So many different tapes are kept."""


@dataclass(frozen=True)
class Moment:
    """When a loss was made: optimizer steps before it, its value, torch's generator and autocast before the first
    module ran, the scale that the gradient scaler put on it, the loader and the batch drawn last; `whole`: recorded
    from the beginning of its step."""

    step: int
    loss: float
    rng: Tensor | None
    autocast: tuple[str, torch.dtype] | None
    scale: float
    drawn: tuple[Any, Any]
    whole: bool


def keep(seen: Seen, at: Moment, loss: Tensor, calls: list[Call]) -> None:
    """Cut the tape of `loss` out of the calls; keep it (if it is of a new form), and its batch (maybe)."""
    seen.sampled += 1
    modules = [call.function for call in calls if isinstance(call.function, nn.Module)]
    roots = tuple({id(m): m for m in modules}.values())
    seen.note_modes(roots)
    owner = {id(m): str(id(m)) for m in roots}
    try:
        loss = _attached(seen, calls, loss, at.loss, owner)
        tape, numbers, linked = cut(calls, loss, owner, seen.parameter_names())
    except NotReplayable as error:
        _not_replayable(seen, error, calls, loss)
        return
    leaves = tuple(linked.tensors[n] for n in numbers)
    seen.loss_site = seen.loss_site or (tape.steps[-1].site if tape.steps else "")
    form = next((i for i, known in enumerate(seen.forms) if known.tape.same_form(tape)), len(seen.forms))
    if form == len(seen.forms) and form < FORMS:
        rng = at.rng if at.rng is not None else torch.get_rng_state()
        leaves = tuple(t.detach().clone() for t in leaves)
        training = dict(seen.training)
        seen.forms.append(Form(tape, roots, leaves, at.loss, rng, at.step, training, at.autocast, at.scale))
    if form < FORMS:
        known = seen.forms[form]
        if at.whole and (known.origin is None or known.origin.early):
            known.origin = Origin(linked, numbers, *at.drawn)
        elif known.origin is None and at.drawn[1] is not None:
            known.origin = _first_origin(linked, numbers, *at.drawn)
        seen.offer(at.step, form, leaves)


def _attached(seen: Seen, calls: list[Call], loss: Tensor, value: float, owner: dict[int, str]) -> Tensor:
    """The loss; where it was made anew from a value, the tensor that this value was read from."""
    if loss.grad_fn is not None or not any(id(call.function) in owner for call in calls):
        return loss
    linked = link(calls)
    alive = descends(linked, seen.parameter_names())
    if linked.number(loss) in alive:
        return loss
    for number in sorted(alive, reverse=True):
        tensor = linked.tensors[number]
        scalar = tensor is not loss and tensor.numel() == 1 and tensor.is_floating_point()
        if scalar and math.isclose(float(tensor.detach()), value, rel_tol=1e-6):
            seen.detached = "the loss was made anew from values, it has no path to the model"
            seen.loss_site = seen.loss_site or site(5)
            return tensor
    return loss


def _not_replayable(seen: Seen, error: NotReplayable, calls: list[Call], loss: Tensor) -> None:
    if str(error) not in seen.trouble:
        seen.trouble.append(str(error))
    if "descend" in str(error) or "recorded" in str(error):
        number = link(calls).number(loss) if calls and loss.grad_fn is None else None
        if number is not None and calls and any(isinstance(c.function, nn.Module) for c in calls):
            why = "the loss was made anew from values, it has no path to the model"
            seen.detached = seen.detached or why
            seen.loss_site = seen.loss_site or site(5)


def _first_origin(linked: Linked, numbers: tuple[int, ...], loader: Any, batch: Any) -> Origin | None:
    """The origin of the very first step, whose beginning was not recorded: known only where every leaf is a tensor of
    the loader's batch as it was drawn. For runs that end there (a NaN), until a later step shows the preparation."""
    drawn = {id(t) for t in tensors_in(batch)}
    whole = all(id(linked.tensors[n]) in drawn for n in numbers)
    return Origin(linked, numbers, loader, batch, early=True) if whole else None

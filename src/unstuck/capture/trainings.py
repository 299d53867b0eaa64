"""Several trainings in one script, one after the other (folds, a sweep, pretraining and then fine-tuning): the records
of one are not those of the next.

Another training begins where an optimizer makes its first step that holds no parameter of those that stepped before. If
one of these steps again, they take turns (the two players of a GAN, actor and critic), and all of it is one training.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from unstuck.capture.clearing import Clearing
from unstuck.capture.hidden import hidden, parameters_of
from unstuck.capture.seen import Seen, bytes_of

KEPT = 8
"""So many records of trainings before are kept, in case that they take turns."""

FEWEST = 2
"""A record of fewer steps may be that of an optimizer whose turn came once, in a run that ended there."""


class Trainings:
    """The trainings that a script has made so far; `seen` is the record of the present one, in place.

    `number`: which one this is (1, …); `before`: optimizer steps of those before; `turns`: they turned out to be one.
    """

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._earlier: list[Seen] = []
        self.number, self.before, self.turns = 1, 0, False

    @property
    def sure(self) -> bool:
        """True if no optimizer of a training before could step unseen."""
        return not self._earlier

    def another(self, optimizer: torch.optim.Optimizer) -> bool:
        """True if this step of the optimizer, about to be made, would begin another training."""
        if self.turns or self._seen.steps[id(optimizer)] or self._again(optimizer):
            return False
        stepped, held = _moved(self._seen), _held(optimizer)
        return bool(stepped) and bool(held) and stepped.isdisjoint(held)

    def before_step(self, optimizer: torch.optim.Optimizer, loader: Any) -> bool:
        """Begin a new record (True) or go back, as the step about to be made says; `loader` drew its batch."""
        if self._again(optimizer):
            self._go_back()
        if not self.another(optimizer):
            return False
        earlier = replace(self._seen, losses=list(self._seen.losses))
        self._become(_opened(earlier, optimizer, loader))
        self._earlier = [*self._earlier, earlier][-KEPT:]
        self.number, self.before = self.number + 1, self.before + earlier.made
        return True

    def end(self) -> None:
        """No more steps follow."""
        if self._earlier and self._seen.made < FEWEST:
            self._go_back()

    def _again(self, optimizer: torch.optim.Optimizer) -> bool:
        return any(id(optimizer) in earlier.steps for earlier in self._earlier)

    def _go_back(self) -> None:
        for earlier in reversed(self._earlier):
            self._become(_joined(earlier, replace(self._seen, losses=list(self._seen.losses))))
            self.number, self.before = self.number - 1, self.before - earlier.made
        self._earlier, self.turns = [], True

    def _become(self, record: Seen) -> None:
        """The record in place: others hold on to it, and to its list of losses."""
        self._seen.losses[:] = record.losses
        for field in fields(record):
            if field.name != "losses":
                setattr(self._seen, field.name, getattr(record, field.name))


def _opened(earlier: Seen, optimizer: torch.optim.Optimizer, loader: Any) -> Seen:
    """The record of a training at its first step: what is there of its loss, its model, and its optimizer."""
    held = set(_held(optimizer))
    roots = {i: m for i, m in earlier.roots.items() if held & {id(p) for p in m.parameters()}}
    resting = {i: pair for i, pair in earlier.optimizers.items() if not earlier.steps[i]}
    opened = Seen(
        losses=earlier.losses[earlier.marked :],
        opened=earlier.backwards - earlier.marked,
        optimizers=resting,
        made_lrs={i: rates for i, rates in earlier.made_lrs.items() if i in resting},
        schedulers=[entry for entry in earlier.schedulers if entry[2] in resting],
        roots=roots,
        names=earlier.names,
        initial=_initial(earlier, held, roots),
        scale=earlier.scale,
        loaders={i: pair for i, pair in earlier.loaders.items() if i == id(loader)},
        train_loaders=earlier.train_loaders & {id(loader)},
        draw=earlier.draw,
    )
    _take_first_form(opened, earlier)
    return opened


def _initial(earlier: Seen, held: set[int], roots: dict[int, Any]) -> dict[int, tuple[Any, Any]]:
    """What the model holds, as it was first seen; as it is now, where a training before has moved it."""
    moved, own = _moved(earlier), set(held)
    for root in roots.values():
        tensors = [*root.parameters(), *root.buffers(), *parameters_of(hidden(root))]
        own |= {id(t) for t in tensors}
        if not moved.isdisjoint(own):
            moved |= {id(t) for t in tensors}  # its running statistics too
    return {
        i: (tensor, tensor.detach().clone() if i in moved else first)
        for i, (tensor, first) in earlier.initial.items()
        if i in own
    }


def _take_first_form(opened: Seen, earlier: Seen) -> None:
    """The tape of the step that is about to be made, if it was recorded and is the first of its form."""
    place = len(earlier.forms) - 1
    if place < 0 or earlier.forms[place].step != earlier.made or not opened.roots:
        return
    opened.forms = [replace(earlier.forms[place], step=0)]
    opened.batches = [(0, 0, leaves) for step, form, leaves in earlier.batches if (step, form) == (earlier.made, place)]
    opened.offered, opened.bytes = len(opened.batches), sum(bytes_of(leaves) for _, _, leaves in opened.batches)
    opened.sampled, opened.loss_site = 1, earlier.loss_site
    opened.note_modes(opened.forms[0].roots)


def _joined(earlier: Seen, later: Seen) -> Seen:
    """One record of two that turned out to take turns: what was noted at every step, and the looks of the first."""
    clearing = Clearing()
    clearing.checked, clearing.discarded = earlier.clearing.checked, earlier.clearing.discarded
    return replace(
        earlier,
        losses=earlier.losses + later.losses[later.opened :],
        marked=earlier.marked + later.marked,
        settled=earlier.settled + later.settled,
        steps=earlier.steps + later.steps,
        optimizers=earlier.optimizers | later.optimizers,
        made_lrs=earlier.made_lrs | later.made_lrs,
        schedulers=list(dict.fromkeys([*earlier.schedulers, *later.schedulers])),
        roots=earlier.roots | later.roots,
        names=earlier.names | later.names,
        initial=later.initial | earlier.initial,
        loaders=earlier.loaders | later.loaders,
        train_loaders=earlier.train_loaders | later.train_loaders,
        per_step=earlier.per_step + later.per_step,
        clearing=clearing,
    )


def _moved(seen: Seen) -> set[int]:
    """What the optimizers that have stepped hold."""
    return {i for o, _ in seen.optimizers.values() if seen.steps[id(o)] for i in _held(o)}


def _held(optimizer: torch.optim.Optimizer) -> list[int]:
    return [id(p) for group in optimizer.param_groups for p in group["params"]]

"""Facts about a training loop, as they were seen from outside: what it steps, clears, clips, and how its loss went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

State = Mapping[str, Tensor]
"""Parameters and buffers by name."""


class Clip(NamedTuple):
    """Clipping of the gradients: by "norm" (of this order: 2 is the length, 1 the sum, inf the peak) or by "value"."""

    kind: str
    bound: float
    order: float = 2.0

    @property
    def call(self) -> str:
        """As it is written: `clip_grad_norm_(…, 1.0)`."""
        return f"clip_grad_{self.kind}_(…, {self.bound:g}" + (f", {self.order:g})" if self.order != 2.0 else ")")


@dataclass(frozen=True)
class Loop:
    """Facts about the user's loop, as it was seen. A hand-written Problem has the defaults: a sound loop, no history.

    steps, backwards     optimizer steps and backward calls seen
    stepping             False when backward ran and no optimizer ever stepped
    by_hand              parameters changed although no optimizer stepped
    uncleared            share of the checked steps that began with gradients of earlier ones (1.0: never cleared)
    accumulate           backward calls per step (the commonest number)
    clip                 how gradients are clipped, or None
    clip_active, clip_factor   share of clip calls that shrank the gradient; median factor by which they did
    clip_before_unscale  True when scaled gradients were clipped
    losses               loss at each backward, in order; `lrs`: learning rate of group 0 at each step
    schedule             that rate as a factor of the recipe's, step by step; () where it never changed
    gradient_norms       (step, norm of the whole gradient) at the sampled steps
    parts                (step, norm of the first of the gradients it adds up, norm of their mean), where it adds up
    training             flag of each module in the last sampled step; `eval_share`: share of sampled steps in eval mode
    kept                 parameters whose gradients are never cleared, where those of another optimizer are
    discarded            share of checked steps of several backwards where gradients were cleared between these
    unheld               parameters of the model that got gradients and that no optimizer holds
    resting              likewise, held only by optimizers that never stepped while another did
    hidden               parameters that the model holds without having registered them (in a plain list, say)
    foreign              number of tensors the optimizer holds that are no parameters of the model
    frozen, without_gradient   held parameters with requires_grad False; trainable ones whose gradient stayed None
    detached             why no gradient flows although the loss replays with one ("" where all is well)
    snapshots            (step, parameters and buffers) along the way
    """

    steps: int = 0
    backwards: int = 0
    stepping: bool = True
    by_hand: bool = False
    uncleared: float = 0.0
    kept: tuple[str, ...] = ()
    accumulate: int = 1
    clip: Clip | None = None
    clip_active: float = 0.0
    clip_factor: float = 1.0
    clip_before_unscale: bool = False
    losses: tuple[float, ...] = ()
    lrs: tuple[float, ...] = ()
    schedule: tuple[float, ...] = ()
    gradient_norms: tuple[tuple[int, float], ...] = ()
    parts: tuple[tuple[int, float, float], ...] = ()
    training: Mapping[str, bool] = field(default_factory=dict)
    eval_share: float = 0.0
    discarded: float = 0.0
    unheld: tuple[str, ...] = ()
    resting: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    foreign: int = 0
    frozen: tuple[str, ...] = ()
    without_gradient: tuple[str, ...] = ()
    detached: str = ""
    loss_scale: float = 1.0
    autocast: tuple[str, torch.dtype] | None = None
    batch_size: int = 0
    snapshots: tuple[tuple[int, State], ...] = ()
    loss_site: str = ""
    scheduler: str = ""
    optimizers: int = 1
    ended: str = ""

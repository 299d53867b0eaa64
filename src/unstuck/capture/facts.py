"""Facts about the user's loop, from what watching kept.

What the rules on the training loop ask: were steps made, were gradients cleared, held, clipped; how did the losses and
the rates run; which parameters did no optimizer hold. Ids of live objects become names here; objects of the user's that
are not in the model (`names`) are left out. Needs no copy of the model: where no loss replays, the facts still hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.capture.seen import Form, Seen
from unstuck.capture.watch import Watch
from unstuck.loop import Clip, Loop
from unstuck.problem import batch_size


def facts(seen: Seen, form: Form | None, modules: Mapping[int, str], names: Mapping[int, str], watch: Watch) -> Loop:
    """The facts of the loop around the loss of `form`; `modules` and `names`: ids to dotted paths in the model."""
    stepped = [o for o, _ in seen.optimizers.values() if seen.steps[id(o)]]
    held_ids = _held(stepped or [o for o, _ in seen.optimizers.values()])
    resting = _held([o for o, _ in seen.optimizers.values()]) - held_ids
    reached = seen.with_gradient | {i for i, (t, _) in seen.initial.items() if t.is_leaf and t.grad is not None}
    live = {i: t for i, (t, _) in seen.initial.items()}
    clips = [clip for clip, _ in seen.clips]
    active, factor = _clipping(seen.clips)
    accumulate = seen.per_step.most_common(1)[0][0] if seen.per_step else 1
    return Loop(
        steps=seen.made,
        backwards=seen.backwards,
        # A run that we stopped at its first backward (a NaN) had no chance to step.
        stepping=seen.made > 0 or (bool(watch.why_stopped) and seen.backwards <= 1),
        by_hand=not seen.made and _moved(seen),
        uncleared=max((1 - _share(flags) for flags in seen.clearing.checked.values()), default=0.0),
        kept=_kept(seen, names),
        discarded=_share(seen.clearing.discarded),
        accumulate=accumulate,
        parts=_parts(seen, accumulate),
        clip=max(set(clips), key=clips.count) if clips else None,
        clip_active=active,
        clip_factor=factor,
        clip_before_unscale=seen.clip_unscaled,
        losses=tuple(float(value) for value in seen.losses),
        lrs=tuple(seen.lrs),
        gradient_norms=tuple(seen.gradient_norms),
        training={modules[i]: 2 * seen.mode_evals[i] <= n for i, n in seen.mode_looks.items() if i in modules},
        eval_share=seen.eval_steps / seen.sampled if seen.sampled else 0.0,
        unheld=tuple(names[i] for i in names if i in reached and i not in held_ids and i not in resting),
        resting=tuple(names[i] for i in names if i in reached and i in resting),
        frozen=tuple(
            names[i] for i in names if i in held_ids - seen.with_gradient and i in live and _is_frozen(live[i])
        ),
        without_gradient=tuple(
            names[i] for i in names if i in seen.no_gradient - reached and i in live and live[i].requires_grad
        ),
        detached=seen.detached,
        loss_scale=seen.scale or (form.scale if form else 1.0),
        autocast=form.autocast if form else None,
        batch_size=batch_size(form.leaves) if form else 0,
        snapshots=_snapshots(seen, names),
        loss_site=seen.loss_site,
        scheduler=f"{seen.schedulers[0][0]} at {seen.schedulers[0][1]}" if seen.schedulers else "",
        optimizers=len([i for i, n in seen.steps.items() if n]),
        ended=watch.why_stopped,
    )


def _kept(seen: Seen, names: Mapping[int, str]) -> tuple[str, ...]:
    """Parameters of optimizers whose gradients are mostly not cleared, where those of another are; else ()."""
    share = {key: _share(flags) for key, flags in seen.clearing.checked.items()}
    never = _held([o for key, (o, _) in seen.optimizers.items() if share.get(key, 1.0) < OFTEN])
    return tuple(names[i] for i in names if i in never) if any(s >= OFTEN for s in share.values()) else ()


OFTEN = 0.5


def _held(optimizers: list[Any]) -> set[int]:
    return {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0


def _is_frozen(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and not tensor.requires_grad


def schedule(lrs: tuple[float, ...], base: float) -> tuple[float, ...]:
    """The course of the rate as factors of `base`; () where it never changed."""
    changed = len(lrs) > 1 and max(lrs) - min(lrs) > 1e-12 * max(map(abs, lrs))
    return tuple(lr / base for lr in lrs) if changed and base > 0 else ()


def _snapshots(seen: Seen, names: Mapping[int, str]) -> tuple[tuple[int, dict[str, Tensor]], ...]:
    return tuple((step, {names[i]: t for i, t in values.items() if i in names}) for step, values in seen.snapshots)


def _parts(seen: Seen, accumulate: int) -> tuple[tuple[int, float, float], ...]:
    """Norms of the first of the gradients that a step adds up and of their mean, where nothing else changed them."""
    untrue = seen.clips or seen.scale not in {0.0, 1.0} or seen.clearing.cleared.count(False) or any(
        seen.clearing.discarded
    )
    if accumulate < 2 or untrue:
        return ()
    sums = dict(seen.gradient_norms)
    return tuple((step, first, sums[step] / accumulate) for step, first in seen.first_norms if step in sums)


def _moved(seen: Seen) -> bool:
    return any(
        t.shape == before.shape and isinstance(t, nn.Parameter) and not torch.equal(t.detach(), before)
        for t, before in seen.initial.values()
    )


def _clipping(clips: list[tuple[Clip, Any]]) -> tuple[float, float]:
    """Share of clip calls that shrank the gradient, and the median factor (bound / norm, at most 1)."""
    factors = sorted(min(1.0, clip.bound / max(float(norm), 1e-30)) for clip, norm in clips if norm is not None)
    if not factors:
        return 0.0, 1.0
    return sum(f < 1 for f in factors) / len(factors), factors[len(factors) // 2]

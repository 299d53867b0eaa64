"""The observer of a running training: what it keeps, and when it looks closely.

Every backward leaves its loss, every step its learning rate (a microsecond or two each; while no more is wanted, the
watch is *quiet* and does nothing else). A *sampled* step is recorded: a `Recorder` runs from the end of the step before
(or from the first forward pass) to `backward`, modules that hold parameters are opaque entries, and the tape of the
loss with its leaves is kept. The `Meter` decides how often.

Nothing here draws random numbers, changes a tensor, or leaves a hook behind on the user's objects.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from unstuck.capture.drawing import Drawing
from unstuck.capture.meter import KEPT_FREE, PER_CALL_S, Meter, own_clock
from unstuck.capture.patches import install
from unstuck.capture.pulse import STRETCH, Pulse
from unstuck.capture.recording import Recording
from unstuck.capture.sample import Moment, keep
from unstuck.capture.scaling import Scaling
from unstuck.capture.seen import Seen
from unstuck.capture.trainings import Trainings
from unstuck.errors import StopTraining
from unstuck.recorder import Call, site

FIRST_TRIES = 20
VALIDATION_S = 0.01
"""What recording a validation may cost, `VALIDATION_CALLS` calls at most."""
UNMEASURED = 3
"""So many steps are recorded before one that is not has shown how long a step takes."""


class Watch:
    """Watches every training in this process while it is installed (`with Watch() as watch: …`)."""

    def __init__(
        self, share: float = 0.02, steps: int | None = None, stop_on_nonfinite: bool = True, only: int | None = None
    ) -> None:
        self.seen = Seen()
        self.meter = Meter(share)
        self.limit, self.only = steps, only
        self.stop_on_nonfinite = stop_on_nonfinite
        self.why_stopped = ""
        self._stack: ExitStack | None = None
        self.trainings = Trainings(self.seen)
        self._recording = Recording(self.seen, self.meter)
        self._on_step: tuple[Any, ...] = ()
        self._resting: torch.optim.Optimizer | None = None
        self._pulse = Pulse(self.seen.losses)
        self._scaling = Scaling(self.seen, self._loud)
        self._drawing = Drawing(self.seen, self._recording, self._pulse)
        self._waits = False
        self._unusual = True
        self._sample_this = True
        self._cost_s = 0.002

    def __enter__(self) -> Watch:
        self._open()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._close()
        self.meter.end()

    def _open(self) -> None:
        self._stack = install(self, self._scaling, self._drawing, self._pulse)
        self._loud()
        self._recording.arm()

    def _close(self) -> None:
        self._recording.stop()
        self._loud()
        self._hush()
        assert self._stack is not None
        self._stack.close()
        self._stack = None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Nothing is watched, and the training's clock stands still, while an examination runs inside the block."""
        if self._stack is None:
            yield
            return
        start = time.perf_counter()
        self._close()
        try:
            yield
        finally:
            self._open()
            self.meter.pause(time.perf_counter() - start)

    # --- what the wraps report -------------------------------------------------------------------------------------

    def before_backward(self, loss: Tensor) -> None:
        """Only take the pulse, if that was decided after the last step; else look at the loss."""
        resting, self._resting = self._resting, None
        if resting is not None and loss.numel() == 1 and isfinite(value := loss.item()):
            self._hush()
            self._pulse.begin(resting, self._room())
            self._pulse.note(value)
        else:
            self._loud()
            self.meter.begin()
            self._look_at_loss(loss)

    def _look_at_loss(self, loss: Tensor) -> None:
        """Keep the loss; if this step is recorded, cut its tape."""
        seen = self.seen
        calls = self._recording.stop()
        if seen.clearing.following:
            with self.meter.timed():
                seen.clearing.before_backward(loss)
        if self._sample_this and seen.backwards - seen.marked == 1 and len(seen.optimizers) == 1:
            with self.meter.timed():
                self._look_at_first()
        original, scale = self._scaling.original(loss)
        self._waits = self.meter.on_device = original.is_cuda
        if original.is_cuda and calls is None:
            seen.losses.append(original.detach())  # read later: a look at every step would wait for the device
            return
        value = float(original.detach().float().mean())
        seen.losses.append(value)
        if self._drawing.last[0] is not None:
            seen.train_loaders.add(id(self._drawing.last[0]))
        if calls is not None or (not seen.forms and seen.backwards <= FIRST_TRIES):
            with self.meter.timed():
                self._sample(original, value, calls or [], scale)
        if not original.requires_grad and not seen.detached:
            seen.detached = "the loss does not require a gradient"
            seen.loss_site = seen.loss_site or site(3)
        if not isfinite(value):
            self._stop("the loss is not finite", self.stop_on_nonfinite)
        if not seen.made and seen.backwards < FIRST_TRIES:
            self._recording.arm()

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Before an optimizer's first step: keep the initial value of what it holds. It may begin another training."""
        if self.seen.steps[id(optimizer)] == 0:
            if self.trainings.number == self.only and self.trainings.another(optimizer):
                self._stop(f"another training began after training {self.only}", True)
            with self.meter.timed():
                began = self.trainings.before_step(optimizer, self._drawing.last[0])
                self.meter.starts += began and not self.seen.forms
                self.seen.keep_initial(p for group in optimizer.param_groups for p in group["params"])
        if self.seen.clearing.following:
            with self.meter.timed():
                self.seen.clearing.before_step(optimizer, self.seen.backwards - self.seen.marked)

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Count the step, keep its learning rate, and decide whether to record the next one."""
        self._loud()
        self.seen.optimizers.setdefault(id(optimizer), (optimizer, ""))
        self._count(optimizer, [float(optimizer.param_groups[0].get("lr", 0.0))])
        if self.seen.backwards > self.seen.marked:
            self.seen.per_step[self.seen.backwards - self.seen.marked] += 1
            self.seen.marked = self.seen.backwards
        with self.meter.timed():
            if self._sample_this:
                self._look_at(optimizer)
            self.seen.snapshot(self.seen.made)
        self.meter.stepped(self.seen.made - self.seen.settled, plain=not self._unusual)
        self.seen.settled = self.seen.made
        self._scaling.stepped()
        if self.limit is not None and self.seen.made + self.trainings.before >= self.limit:
            self._stop(f"{self.limit} optimizer steps were made", True)
        self._go_on(optimizer)

    def _count(self, optimizer: torch.optim.Optimizer, rates: list[float]) -> None:
        """Steps were made at these learning rates."""
        self.seen.steps[id(optimizer)] += len(rates)
        if next(iter(self.seen.steps)) == id(optimizer):  # of several optimizers the first one's
            self.seen.lrs += rates

    def _go_on(self, optimizer: torch.optim.Optimizer) -> None:
        """Record the next step if that can be afforded, else only take the pulse until it can."""
        following = self.seen.clearing.following
        measured = self.meter.knows_plain or self.seen.sampled < UNMEASURED
        self._sample_this = measured and self.meter.may_sample(self._cost_s)
        self._unusual = self._sample_this or following
        self._resting = None
        if self._sample_this:
            self._recording.arm()
            self._recording.start(whole=True)
            return
        self._recording.disarm()  # it may be armed still, and would begin in the midst of the step
        if not following and "lr" in optimizer.param_groups[0] and self._has_seen_enough() and self._room() > 0:
            self._resting = optimizer

    def _has_seen_enough(self) -> bool:
        """True if the steps to come can be told from their backwards alone: one optimizer, always so many backwards a
        step, and a loss on the CPU (its value is at hand)."""
        seen = self.seen
        regular = len(seen.optimizers) == 1 == len(seen.per_step) and not self._waits and not self._recording.active
        return regular and self.trainings.sure and bool(seen.forms or seen.backwards > FIRST_TRIES)

    def _room(self) -> int:
        """How many backwards may pass before the next look."""
        left = self.seen.next_snapshot - self.seen.made - 1
        if self.limit is not None:
            left = min(left, self.limit - self.trainings.before - self.seen.made - 1)
        return int(min(left, self.meter.steps_until(self._cost_s), STRETCH)) * next(iter(self.seen.per_step))

    def _hush(self) -> None:
        """Take the optimizer's hooks off, and the one on modules."""
        self._recording.disarm()
        for hook in self._on_step:
            hook.remove()
        self._on_step = ()

    def _loud(self) -> None:
        """End a quiet stretch, if there is one: every hook looks again."""
        self._resting, optimizer = None, self._pulse.of
        if optimizer is not None:
            every = next(iter(self.seen.per_step))
            rates = self._pulse.end()[every - 1 :: every]  # backwards of a step not yet made stay open
            self._count(optimizer, rates)
            self.seen.per_step[every] += len(rates)
            self.seen.marked += every * len(rates)
        if not self._on_step:
            before, after = register_optimizer_step_pre_hook, register_optimizer_step_post_hook
            self._on_step = (before(self._before_step), after(self._after_step))

    def made_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember the optimizer and the line that made it."""
        self._loud()
        self.seen.optimizers[id(optimizer)] = (optimizer, site(3))
        self.seen.made_lrs[id(optimizer)] = [group.get("lr") for group in optimizer.param_groups]
        if self.trainings.another(optimizer):  # its start-up has its allowance, and its first step is looked at
            self.meter.starts += 1
            self._sample_this = self._unusual = True
            self._recording.arm()

    def made_scheduler(self, scheduler: Any) -> None:
        """Remember the scheduler's class and line."""
        self.seen.schedulers.append((type(scheduler).__name__, site(3), id(getattr(scheduler, "optimizer", None))))

    def entered_eval(self, module: nn.Module) -> None:
        """A validation may follow: record it while the budget allows and little of it is known."""
        wanted = self.seen.steps and self.seen.wants_validation and not self._recording.validating
        if wanted and self.meter.may_sample(VALIDATION_S, KEPT_FREE):
            self._recording.validating = True
            self._loud()
            self._recording.arm()
            self._recording.start()

    # --- looking closely -------------------------------------------------------------------------------------------

    def _sample(self, loss: Tensor, value: float, calls: list[Call], scale: float) -> None:
        start = own_clock()
        keep(self.seen, self._moment(value, scale), loss, calls)
        self._cost_s = 0.5 * self._cost_s + 0.5 * (own_clock() - start + len(calls) * PER_CALL_S)

    def _moment(self, value: float, scale: float) -> Moment:
        recording = self._recording
        rng, autocast, whole = recording.rng, recording.autocast, recording.whole
        return Moment(self.seen.made, value, rng, autocast, scale, self._drawing.last, whole)

    def _look_at(self, optimizer: torch.optim.Optimizer) -> None:
        held = [p for group in optimizer.param_groups for p in group["params"]]
        grads = [p.grad for p in held if p.grad is not None and not p.grad.is_sparse]
        self.seen.no_gradient.update(id(p) for p in held if p.grad is None)
        self.seen.with_gradient.update(i for i, (t, _) in self.seen.initial.items() if t.is_leaf and t.grad is not None)
        self.seen.clearing.follow(optimizer)
        if grads:
            self.seen.gradient_norms.append((self.seen.made, _norm(grads)))

    def _look_at_first(self) -> None:
        """The first of several gradients that a step adds up: beside their sum it tells how noisy they are."""
        optimizer, _ = next(iter(self.seen.optimizers.values()))
        held = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if held and not any(g.is_sparse for g in held):
            self.seen.first_norms.append((self.seen.made + 1, _norm(held)))

    def _stop(self, why: str, stop: bool) -> None:
        if stop and not self.why_stopped:
            self.why_stopped = why
            raise StopTraining(why)


def _norm(gradients: list[Tensor]) -> float:
    norms = torch._foreach_norm([g.detach() for g in gradients])
    return float(torch.stack([n.float() for n in norms]).norm())

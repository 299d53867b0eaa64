"""The anatomy of the loss: every torch call of one forward pass, and what lies between the model and the criterion.

`head` are the calls that lead, one after the other, from the last layer with parameters to the criterion's input: an
extra softmax, a sigmoid, a squeeze stand there.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unstuck.criterion import expects
from unstuck.problem import Problem
from unstuck.rewriting import operands
from unstuck.sandbox import sandbox
from unstuck.trace import Seen, Trace, trace

LAYERS = frozenset({"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "bilinear", "addmm",
                    "matmul", "__matmul__", "mm", "bmm", "lstm", "gru", "rnn_tanh", "rnn_relu", "embedding",
                    "multi_head_attention_forward", "einsum", "baddbmm"})  # fmt: skip


@dataclass(frozen=True)
class Anatomy:
    """A trace at the last state, the criterion's call in it (None where unknown), and the head before it."""

    trace: Trace
    criterion: Seen | None
    head: tuple[Seen, ...]
    output: Tensor | None
    target: Tensor | None
    expects: str


def measure(problem: Problem) -> Anatomy:
    """One forward pass on the first batch."""
    with sandbox(0):
        seen = trace(problem, problem.twin(last=True), problem.data[0])
    call = next((c for c in seen.calls if c.key == problem.criterion.key), None)
    if call is None:
        return Anatomy(seen, None, (), None, None, expects(problem.criterion.kind))
    output, target = operands(call.args, call.kwargs, call.name)
    if problem.criterion.flipped:
        output, target = target, output
    return Anatomy(seen, call, head(seen, output), output, target, expects(problem.criterion.kind))


def head(seen: Trace, output: Tensor) -> tuple[Seen, ...]:
    """Calls from the last layer with parameters to `output`, nearest to the criterion last."""
    found: list[Seen] = []
    call = seen.maker(output)
    while call is not None and call.name not in LAYERS:
        found.append(call)
        source = next((a for a in (*call.args, *call.kwargs.values()) if seen.lives(a)), None)
        if source is None and call.args and isinstance(call.args[0], (list, tuple)):
            source = next((a for a in call.args[0] if seen.lives(a)), None)
        earlier = seen.maker(source) if isinstance(source, Tensor) else None
        call = earlier if earlier is None or earlier.index < found[-1].index else None
    return tuple(reversed(found))

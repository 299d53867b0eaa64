"""A recorded call has the function's plain name, and the user's line: in a replay too."""

import torch
import torch.nn.functional as F
from torch import nn

from unstuck.recorder import Recorder, name_of
from unstuck.tape import cut


def test_names_are_the_plain_ones():
    with Recorder() as recorder:
        x = torch.ones(2, 2, requires_grad=True)
        _ = F.relu(x) @ x.data
    assert [name_of(call.function) for call in recorder.calls] == ["ones", "relu", "data", "__matmul__"] or [
        name_of(call.function) for call in recorder.calls
    ] == ["ones", "relu", "data", "matmul"]


def test_a_replayed_call_has_the_line_it_was_recorded_at():
    w, x = torch.ones(3, requires_grad=True), torch.ones(4, 3)
    with Recorder() as recorder:
        loss = (
            (x @ w - 1)
            .square()
            .mean()
        )  # fmt: skip
    tape, numbers, linked = cut(recorder.calls, loss, {}, {id(w): "w"})
    twin = nn.Module()
    twin.w = nn.Parameter(torch.ones(3))
    with Recorder() as replayed:
        tape(twin, [linked.tensors[n] for n in numbers])
    lines = [call.site for call in recorder.calls]
    assert len(set(lines)) > 1 and all(line.startswith(f"{__file__}:") for line in lines)
    assert [call.site for call in replayed.calls] == lines

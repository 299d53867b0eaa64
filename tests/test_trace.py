"""A trace shows every call of a loss with its module and wiring, and walks back along it to an end."""

import torch
import torch.nn.functional as F
from torch import nn

from unstuck.problem import Problem
from unstuck.trace import trace


class HandsOn(nn.Module):
    """Layers with calls between them that return the very tensor they got."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.second(self.first(x).contiguous().float().to(torch.float32))


def traced():
    problem = Problem(HandsOn(), nn.CrossEntropyLoss(), [(torch.randn(6, 4), torch.randint(0, 3, (6,)))])
    return trace(problem, problem.twin(), problem.data[0])


def test_calls_stand_in_order_with_their_modules():
    seen = traced()
    assert [(c.name, c.path) for c in seen.calls if c.name in {"linear", "cross_entropy"}] == [
        ("linear", "first"), ("linear", "second"), ("cross_entropy", "")]  # fmt: skip


def test_walking_back_ends_where_calls_hand_on_the_tensor_they_got():
    seen = traced()
    call, names = next(c for c in seen.calls if c.path == "second"), []
    while call is not None:
        names.append(call.name)
        call = seen.below(call, call.args[0])
    assert names[0] == names[-1] == "linear"
    assert len(names) == len(seen.ancestors) - 1


def test_readers_are_the_calls_that_take_a_result():
    seen = traced()
    last = next(c for c in seen.calls if c.path == "second")
    assert [reader.name for reader in seen.readers(last)] == ["cross_entropy"]


def test_what_descends_from_a_parameter_lives():
    seen = traced()
    loss = next(c for c in seen.calls if c.name == "cross_entropy")
    assert seen.lives(loss.args[0])
    assert not seen.lives(loss.args[1])


def test_the_loss_is_the_loss():
    problem = Problem(HandsOn(), nn.CrossEntropyLoss(), [(torch.randn(6, 4), torch.randint(0, 3, (6,)))])
    model, (x, y) = problem.twin(), problem.data[0]
    assert torch.equal(trace(problem, model, (x, y)).loss, F.cross_entropy(model(x), y))

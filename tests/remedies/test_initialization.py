"""Fresh weights by the layer that follows; activations inserted, replaced, normalized; gates."""

import math

import pytest
import torch
from torch import nn

from unstuck.problem import Problem
from unstuck.remedies.activation import inserted, normalized
from unstuck.remedies.gates import gated
from unstuck.remedies.initialization import reinitialize
from unstuck.training import Training


def problem(model, x=None, classes=4):
    torch.manual_seed(0)
    x = torch.randn(16, 200) if x is None else x
    data = [(x, torch.randint(0, classes, (16,))) for _ in range(4)]
    return Problem(model, nn.CrossEntropyLoss(), data, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


def fresh(model, **options):
    case = problem(model, **options)
    return reinitialize(case).apply(case).model


@pytest.mark.parametrize("start", [0.0, 0.02, 1e4])
def test_he_before_relu_glorot_before_tanh_whatever_the_start(start):
    model = nn.Sequential(nn.Linear(200, 300), nn.ReLU(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 4))
    for parameter in model.parameters():
        nn.init.constant_(parameter, start)
    made = fresh(model)
    assert float(made[0].weight.detach().std()) == pytest.approx(math.sqrt(2 / 200), rel=0.05)
    assert float(made[2].weight.detach().std()) == pytest.approx(math.sqrt(2 / 600), rel=0.05)
    assert not made[0].bias.any()
    assert bool((model[0].weight == start).all())


class Reader(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.body = kind(8, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, ids):
        return self.head(self.body(self.embed(ids))[0][:, -1])


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_weights_become_orthogonal_block_by_block(kind):
    model = Reader(kind)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    made = fresh(model, x=torch.randint(0, 9, (16, 5)))
    for block in made.body.weight_hh_l0.split(8):
        assert torch.allclose(block @ block.T, torch.eye(8), atol=1e-5)
    assert float(made.embed.weight.detach().std()) == pytest.approx(1.0, rel=0.3)


def test_a_usual_embedding_stays_and_a_huge_tied_one_becomes_small():
    small, huge = Reader(nn.GRU), Reader(nn.GRU)
    nn.init.normal_(small.embed.weight, std=0.02)
    huge.head = nn.Linear(8, 9, bias=False)
    huge.head.weight = huge.embed.weight
    nn.init.normal_(huge.embed.weight, std=3.0)
    ids = torch.randint(0, 9, (16, 5))
    assert torch.equal(fresh(small, x=ids).embed.weight, small.embed.weight)
    made = fresh(huge, x=ids)
    assert float(made.embed.weight.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert made.head.weight is made.embed.weight


def test_attention_and_norms_are_reset():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 4))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    made = fresh(model, x=torch.randn(16, 5, 8))
    assert float(made[0].self_attn.in_proj_weight.detach().std()) > 0.1
    assert float(made[0].self_attn.out_proj.weight.detach().std()) > 0.1
    assert bool((made[0].norm1.weight == 1).all())


def test_inserted_relu_makes_a_linear_stack_bend():
    model = nn.Sequential(nn.Linear(200, 8), nn.Linear(8, 4))
    case = problem(model)
    bent = inserted((("linear", 0),), "0").apply(case)
    x, y = case.data[0]
    want = nn.functional.cross_entropy(model[1](torch.relu(model[0](x))), y)
    assert bent.value(bent.twin(), case.data[0]).item() == pytest.approx(want.item(), rel=1e-6)


def test_normalized_stands_in_front_of_the_activation():
    model = nn.Sequential(nn.Linear(200, 8), nn.Sigmoid(), nn.Linear(8, 4))
    case = problem(model)
    changed = normalized((("sigmoid", 0),)).apply(case)
    x, y = case.data[0]
    hidden = torch.sigmoid(nn.functional.layer_norm(model[0](x), (8,)))
    want = nn.functional.cross_entropy(model[2](hidden), y)
    assert changed.value(changed.twin(), case.data[0]).item() == pytest.approx(want.item(), rel=1e-6)


def test_gates_take_the_place_of_a_plain_recurrence_and_are_trained():
    model = Reader(nn.RNN)
    case = problem(model, x=torch.randint(0, 9, (16, 5)))
    changed = gated(case).apply(case)
    assert type(changed.model.body) is nn.GRU
    run = Training(changed)
    before = run.model.body.weight_hh_l0.detach().clone()
    run.advance(2)
    assert not torch.equal(before, run.model.body.weight_hh_l0)

"""The table: rows are what reaches the model, targets what the criterion sees."""

import numpy as np
import pytest
import torch
from tests.small import clouds, mlp, written
from torch import nn

from unstuck.errors import UnstuckError
from unstuck.probes.table import CONTEXT, tabulate


def test_rows_are_the_samples_in_their_order():
    x, y = clouds(64)
    table = tabulate(written(mlp(), x, y), written(mlp(), x, y).data, 48)
    assert table.kind == "rows" and table.classes and table.narrowest == 4 and table.shape == (24,)
    np.testing.assert_allclose(table.inputs, x[:48].numpy())
    np.testing.assert_array_equal(table.targets, y[:48].numpy())


def test_preparation_inside_the_model_does_not_count_but_what_the_loop_does_would():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            return self.net(x / 100)

    x, y = clouds(64)
    case = written(Scaled(), x * 100, y)
    np.testing.assert_allclose(tabulate(case, case.data, 32).inputs, 100 * x[:32].numpy(), rtol=1e-6)


class Tagger(nn.Module):
    def __init__(self, out=7):
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 4), nn.Linear(4, out)

    def forward(self, ids):
        return self.out(self.embed(ids)).transpose(1, 2)


def test_tokens_come_with_the_ids_up_to_them():
    ids = torch.arange(40).reshape(4, 10) % 7
    case = written(Tagger(), ids, (ids + 1) % 7, size=1)
    table = tabulate(case, case.data, 100)
    assert table.kind == "tokens" and len(table) == 30 and table.inputs.shape == (30, CONTEXT)
    assert table.inputs[0].tolist() == [-1, -1, 0] and table.inputs[4].tolist() == [2, 3, 4]
    assert ((table.inputs[:, -1] + 1) % 7 == table.targets).all()


def test_one_label_for_a_text_is_a_bag_of_words():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(5, 4), nn.Linear(4, 2)

        def forward(self, ids):
            return self.out(self.embed(ids).mean(1))

    ids = torch.tensor([[0, 0, 4], [1, 2, 2], [4, 4, 4], [0, 1, 2]])
    case = written(Bag(), ids, torch.tensor([0, 1, 0, 1]), size=1)
    np.testing.assert_array_equal(
        tabulate(case, case.data, 9).inputs, [[2, 0, 0, 0, 1], [0, 1, 2, 0, 0], [0, 0, 0, 0, 3]]
    )


class Rating(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 4), nn.Linear(8, 1)

    def forward(self, ids):
        return self.out(self.embed(ids).flatten(1)).squeeze(1)


def test_a_second_table_has_the_columns_of_the_first():
    """Ids up to 6 in the first, up to 8 in the second: 7 and 8 are not known to a model of the first."""
    ids = torch.tensor([[k % 7, k % 5] for k in range(40)])
    fresh = torch.tensor([[8, 0], [2, 7], [2, 4]]).repeat(8, 1)
    first, second = (written(Rating(), x, torch.randn(len(x)), loss=nn.MSELoss()) for x in (ids, fresh))
    ours = tabulate(first, first.data, 100)
    theirs = tabulate(second, second.data, 100, ours.widths)
    assert ours.widths == (7,) and theirs.inputs.shape[1] == ours.inputs.shape[1] == 7
    assert theirs.inputs[:3].tolist() == [[1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0]]
    with pytest.raises(UnstuckError, match="1 inputs here, 2"):
        tabulate(second, second.data, 100, (7, 5))


def test_a_target_that_is_the_input_is_an_autoencoder_with_its_narrowest_layer():
    x = clouds(64)[0]
    case = written(nn.Sequential(nn.Linear(24, 3), nn.Linear(3, 24)), x, x, nn.MSELoss())
    table = tabulate(case, case.data, 64)
    assert (table.kind, table.task, table.narrowest) == ("autoencoder", "regression", 3)


def test_binary_targets_become_classes():
    x, y = clouds(64, classes=2)
    case = written(mlp(classes=1), x, y.float()[:, None], nn.BCEWithLogitsLoss())
    assert set(tabulate(case, case.data, 64).targets.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda: written(nn.Conv2d(1, 3, 1), torch.randn(8, 1, 2, 2), torch.arange(32).reshape(8, 2, 2) % 3, size=4),
            "labels",
        ),
        (lambda: written(mlp(), torch.full((64, 24), float("nan")), clouds(64)[1]), "finite"),
        (lambda: written(nn.Linear(20_001, 2), torch.randn(8, 20_001), torch.tensor([0, 1] * 4), size=4), "wide"),
    ],
)
def test_what_is_no_table_says_why(make, why):
    case = make()
    with pytest.raises(UnstuckError, match=why):
        tabulate(case, case.data, 64)


def test_a_loss_without_a_target_is_no_table():
    class Norm(nn.Module):
        def forward(self, output, target):
            return output.logsumexp(1).mean()

    case = written(mlp(), *clouds(64), Norm())
    with pytest.raises(UnstuckError, match="no target"):
        tabulate(case, case.data, 64)


def test_one_label_that_is_a_token_is_the_next_one():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(9, 4), nn.Linear(4, 9)

        def forward(self, ids):
            return self.out(self.embed(ids).mean(1))

    ids = torch.randint(0, 9, (32, 5))
    case = written(Last(), ids, (ids[:, -1] + 1) % 9, size=4)
    table = tabulate(case, case.data, 99)
    assert table.kind == "tokens" and (table.inputs == ids[: len(table), -CONTEXT:].numpy()).all()
    short = written(Last(), ids[:, :2], (ids[:, 0] + 1) % 9, size=4)
    with pytest.raises(UnstuckError, match="too short"):
        tabulate(short, short.data, 99)

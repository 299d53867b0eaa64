"""Rows give back the batches they were made of, in any size and order."""

import torch

from unstuck.rows import Rows


def batches(count=3, size=4):
    x = torch.arange(count * size * 2.0).view(count, size, 2)
    y = torch.arange(count * size).view(count, size)
    return [(x[i], y[i], torch.tensor([0.5, 0.25])) for i in range(count)]


def test_fetching_in_order_gives_the_recorded_batches_back():
    recorded = batches()
    rows = Rows.of(recorded, 4)
    assert len(rows) == 12
    again = rows.batches(torch.arange(12))
    for ours, theirs in zip(again, recorded, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_leaf_with_several_rows_a_sample_moves_with_its_sample():
    tokens, targets = torch.arange(6).view(2, 3), torch.arange(6) * 10
    rows = Rows.of([(tokens, targets)], 2)
    x, y = rows.fetch(torch.tensor([1, 0]))
    assert torch.equal(x.flatten() * 10, y)


def test_samples_keep_together_in_every_order_and_size():
    rows = Rows.of([b[:2] for b in batches()], 4)
    for x, y in rows.batches(torch.randperm(12), 5):
        assert torch.equal(x[:, 0] / 2, y.float())


def test_the_split_is_a_partition_and_keeps_the_order_of_ordered_data():
    rows = Rows.of(batches(), 4, ordered=True)
    train, held = rows.split(0.25, torch.Generator().manual_seed(0))
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(12))
    assert train.tolist() == sorted(train.tolist())
    assert len(held) == 3


def test_a_ragged_batch_is_used_and_another_layout_left_out():
    recorded = batches()
    recorded.append(tuple(t[:2] if t.dim() and len(t) == 4 else t for t in recorded[0]))
    assert len(Rows.of(recorded, 4)) == 14


def test_positions_are_made_anew_for_every_batch():
    rows = Rows.of([(torch.randn(4, 2), torch.arange(4))], 4)
    assert rows.fetch(torch.tensor([3, 1]))[1].tolist() == [0, 1]


def test_batches_of_all_lengths_make_no_rows():
    assert Rows.of([(torch.randn(4, length), torch.arange(4) + 1) for length in (3, 4, 5, 6)], 4) is None


def test_leaves_without_a_sample_dimension_make_no_rows():
    assert Rows.of([(torch.tensor(1.0), torch.ones(3))], 2) is None


def test_chosen_rows_keep_constants_and_order():
    rows = Rows.of([(torch.rand(8, 1), 10 * torch.arange(8), torch.tensor([0.5]))], 8)
    few = rows.chosen(torch.tensor([5, 2]))
    assert len(few) == 2 and few.columns[1].tolist() == [50, 20] and few.columns[2].tolist() == [0.5]


def test_contents_are_equal_where_samples_are():
    x, y = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]).bfloat16(), torch.tensor([0, 0, 1])
    first, second, third = Rows.of([(x, y)], 3).contents()
    assert first == second != third

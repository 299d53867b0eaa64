"""Samples drawn again and validation batches, from small loops of the kinds users write."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from unstuck.capture.assemble import assemble
from unstuck.capture.watch import Watch


class Items(Dataset):
    """Sample i has input i everywhere (and noise), label i modulo 4."""

    def __init__(self, rows=64, noise=0.0):
        self.rows, self.noise = rows, noise

    def __len__(self):
        return self.rows

    def __getitem__(self, i):
        x = torch.full((6,), float(i))
        return (x + self.noise * torch.randn(6) if self.noise else x), i % 4


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def captured(run):
    """The problem of a watched loop, every step sampled."""
    with Watch(share=1e6, stop_on_nonfinite=False) as watch:
        run()
    found = assemble(watch)
    assert found.problem is not None, found.skipped
    return found.problem


def fit(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()


def by_loader(train, epochs=2, after=lambda model: None, **options):
    def run():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        loader = DataLoader(train, batch_size=8, shuffle=True, **options)
        for _ in range(epochs):
            model.train()
            for x, y in loader:
                fit(model, optimizer, x, y)
            after(model)

    return run


def test_noise_of_a_data_set_is_drawn_anew_on_the_same_samples():
    problem = captured(by_loader(Items(noise=0.1)))
    assert len(problem.redraws) >= 3 and len(problem.redraws[0]) == 8
    first, second = (torch.cat([x for x, _ in draw]) for draw in problem.redraws[:2])
    assert not torch.equal(first, second)
    assert torch.equal(first.mean(1).round(), second.mean(1).round())  # row by row the same sample
    assert len(set(first.mean(1).round().tolist())) == 64


def test_a_data_set_without_chance_is_not_drawn_again():
    assert captured(by_loader(Items())).redraws == ()


def test_labels_coded_by_batch_differ_between_draws():
    def collate(batch):
        x, y = zip(*batch, strict=True)
        return torch.stack(x), torch.unique(torch.tensor(y), return_inverse=True)[1]

    problem = captured(by_loader(Items(), collate_fn=collate, epochs=3))
    assert problem.redraws
    inputs = [torch.cat([x for x, _ in draw]) for draw in problem.redraws[:2]]
    labels = [torch.cat([y for _, y in draw]) for draw in problem.redraws[:2]]
    assert torch.equal(*inputs) and not torch.equal(*labels)


def test_noise_added_in_the_loop_to_picked_rows_is_drawn_anew():
    x, y = torch.arange(64.0)[:, None].repeat(1, 6), torch.arange(64) % 4

    def run():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        for _ in range(3):
            for idx in torch.randperm(64).split(8):
                batch = x[idx]
                fit(model, optimizer, batch + 0.1 * torch.randn_like(batch), y[idx])

    problem = captured(run)
    first, second = (torch.cat([batch[0] for batch in draw]) for draw in problem.redraws[:2])
    assert not torch.equal(first, second) and torch.equal(first.mean(1).round(), second.mean(1).round())


def test_a_loader_that_feeds_no_backward_is_for_validation():
    valid = TensorDataset(torch.full((24, 6), -1.0), torch.zeros(24, dtype=torch.long))
    loader = DataLoader(valid, batch_size=12)

    def evaluate(model):
        with torch.no_grad():
            for x, _ in loader:
                model(x)

    problem = captured(by_loader(Items(), after=evaluate))
    assert len(problem.validation) == 3 and all((x == -1).all() and x.shape == (8, 6) for x, _ in problem.validation)


def test_a_second_loader_over_the_training_data_is_not_for_validation():
    items = Items()
    again = DataLoader(items, batch_size=8)
    assert captured(by_loader(items, after=lambda model: [model(x) for x, _ in again])).validation == ()


def by_index(evaluate):
    x, y = torch.arange(64.0)[:, None].repeat(1, 6), torch.arange(64) % 4
    fresh = -torch.arange(16.0)[:, None].repeat(1, 6), torch.arange(16) % 4

    def run():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        for _ in range(3):
            model.train()
            for idx in torch.randperm(64).split(8):
                fit(model, optimizer, x[idx], y[idx])
            model.eval()
            with torch.no_grad():
                evaluate(model, *fresh)

    return run


def test_an_evaluation_by_the_same_loss_gives_its_leaves():
    problem = captured(by_index(lambda model, x, y: F.cross_entropy(model(x), y)))
    assert problem.validation
    for x, y in problem.validation:
        assert torch.equal(-x[:, 0], torch.arange(16.0)) and torch.equal(y, torch.arange(16) % 4)


def test_an_evaluation_by_accuracy_gives_input_and_labels():
    problem = captured(by_index(lambda model, x, y: (model(x).argmax(1) == y).float().mean()))
    assert problem.validation
    for x, y in problem.validation:
        assert torch.equal(-x[:, 0], torch.arange(16.0)) and torch.equal(y, torch.arange(16) % 4)


def test_an_evaluation_that_shows_no_labels_gives_nothing():
    assert captured(by_index(lambda model, x, y: model(x).argmax(1).tolist())).validation == ()


def test_rows_that_the_script_never_trains_on_are_left_out():
    """A tensor holds everything, the script picks its training rows from a part of it."""
    x, y = torch.arange(400.0)[:, None].repeat(1, 6), torch.arange(400) % 4
    train = torch.randperm(400)[:40]

    def run(rows):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        for _ in range(8):
            for idx in rows[torch.randperm(len(rows))].split(8):
                fit(model, optimizer, x[idx], y[idx])

    def used(problem):
        return {float(v) for batches in (problem.data, problem.held_out) for b in batches for v in b[0][:, 0]}

    assert used(captured(lambda: run(train))) <= {float(i) for i in train}
    assert len(used(captured(lambda: run(torch.arange(400))))) > 300  # few repeats: all that can be drawn is used


def test_windows_of_a_text_are_no_rows_of_it():
    """As many windows a batch as each has letters, so that a window could be taken for a choice of rows."""
    text, drawn = torch.randint(0, 9, (300,)), []

    def run():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(12):
            starts = torch.randint(0, 290, (8,)).tolist()
            x = torch.stack([text[s : s + 8] for s in starts])
            y = torch.stack([text[s + 1 : s + 9] for s in starts])
            drawn.append(x)
            optimizer.zero_grad()
            F.cross_entropy(model(x).transpose(1, 2), y).backward()
            optimizer.step()

    problem = captured(run)
    batches = (*problem.data, *problem.held_out)
    assert all(torch.equal(x[:, 1:], y[:, :-1]) for x, y in batches)
    windows = {tuple(row) for row in text.unfold(0, 8, 1).tolist()}
    found = {tuple(row) for x, _ in batches for row in x.tolist()}
    assert found <= windows
    assert len(found) > sum(map(len, drawn))
    assert problem.redraws == ()


def test_samples_that_are_all_alike_are_not_cut_down_to_one():
    """Eight times round forty samples is a part of four hundred only where they can be told apart."""
    x, y = torch.zeros(400, 6), torch.arange(400) % 4

    def run():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        for _ in range(8):
            for idx in torch.randperm(400)[:40].split(8):
                fit(model, optimizer, x[idx], y[idx])

    problem = captured(run)
    assert len(problem.rows) == 400
    assert sum(len(batch[1]) for batch in (*problem.data, *problem.held_out)) > 380

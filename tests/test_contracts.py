"""Contracts over the whole: examining a live training leaves it bit-identical; a remedy is the code it says."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from tests.capture.test_watch import data, fingerprint, network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import unstuck
from unstuck.capture.assemble import assemble
from unstuck.probes import surface


def every_probe(watch):
    """What a report takes: the probes that its rules want, and a race."""
    return watch.report(budget_s=12)


def slices(watch):
    """Slices through the loss."""
    with watch._watch.suspended():
        return surface.measure(assemble(watch._watch).problem, budget_s=2)


def train(epochs=4, examine_after=None, examine=every_probe):
    """BatchNorm, dropout, a shuffled loader and Adam, examined in the middle."""
    random.seed(0), np.random.seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = DataLoader(TensorDataset(*data()), batch_size=16, shuffle=True)
    losses, report, step = [], None, 0
    with unstuck.watch(model, optimizer, share=10.0) as watch:
        for _ in range(epochs):
            for x, y in loader:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                step += 1
                if step == examine_after:
                    report = examine(watch)
    return (model, optimizer, losses), report


def test_a_training_interrupted_by_all_probes_ends_bit_identical():
    plain, _ = train()
    plain = fingerprint(*plain)
    examined, report = train(examine_after=10)
    assert fingerprint(*examined) == plain
    assert report.cost.race_s > 0 or report.healthy
    assert report.cost.examine_s > 0


def test_a_training_interrupted_by_slices_of_its_loss_ends_bit_identical():
    plain, _ = train()
    plain = fingerprint(*plain)
    examined, found = train(examine_after=10, examine=slices)
    assert fingerprint(*examined) == plain
    assert found.slices


def test_watching_goes_on_after_a_report_and_does_not_see_the_examination():
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with unstuck.watch(model, optimizer, share=10.0) as watch:
        for step in range(12):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(16, 4)), torch.randint(0, 3, (16,))).backward()
            optimizer.step()
            if step == 5:
                watch.report(budget_s=5, cure=False)
    assert watch._watch.seen.backwards == 12
    assert sum(watch._watch.seen.steps.values()) == 12


def test_an_optimizer_that_cannot_train_a_copy_costs_no_report():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(dim=1))
    batches = [(torch.randn(16, 6), torch.arange(16) % 3) for _ in range(8)]
    written = unstuck.Problem(model, nn.CrossEntropyLoss(), batches, optimizer=torch.optim.LBFGS(model.parameters()))
    report = unstuck.examine(written, budget_s=8)
    assert report.findings[0].cause == "softmax-applied-twice"
    assert any(part.probe == "race" and "closure" in part.why for part in report.skipped)

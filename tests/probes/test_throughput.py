"""Batch sizes from 1 to all samples: what is timed, where it ends, what follows from the times; nothing is touched."""

import hashlib
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from unstuck.curvature.memory import available
from unstuck.errors import NotMeasurable
from unstuck.probes.sweep import Timing, median
from unstuck.probes.throughput import Throughput, measure
from unstuck.problem import Problem, state_of
from unstuck.rows import Rows

COLUMNS, CLASSES = 20, 10


def samples(count, columns=COLUMNS):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, columns, generator=generator), torch.randint(0, CLASSES, (count,), generator=generator)


def cut(x, y, size):
    return list(zip(x.split(size), y.split(size), strict=True))


def mlp(width=64, columns=COLUMNS, extra=()):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(columns, width), *extra, nn.ReLU(), nn.Linear(width, CLASSES))


def written(model, data, loss=None, **loop):
    case = Problem(model, loss or nn.CrossEntropyLoss(), data, optimizer=torch.optim.Adam(model.parameters(), lr=1e-3))
    return replace(case, loop=replace(case.loop, **loop))


def sizes(found):
    return [timing.size for timing in found.timings]


# --- which sizes ------------------------------------------------------------------------------------------------------


def test_sizes_are_powers_of_two_the_present_one_and_all_samples():
    found = measure(written(mlp(), cut(*samples(300), 20)), budget_s=20.0)
    assert sizes(found) == [1, 2, 4, 8, 16, 20, 32, 64, 128, 256, 300]
    assert (found.present, found.samples, found.limit) == (20, 300, "samples")
    assert found.optimizer == "Adam" and not found.refused and not found.without
    assert found.device == "cpu" and found.threads == torch.get_num_threads()
    assert found.epoch(found.timings[-1]) == (found.timings[-1].seconds, found.timings[-1].error)


def test_with_accumulation_an_update_sees_several_batches():
    passes = []

    def loss(output, target):
        passes.append(len(output))
        return nn.functional.cross_entropy(output, target)

    found = measure(written(mlp(), cut(*samples(300), 20), loss, accumulate=3), budget_s=20.0)
    assert sizes(found)[-1] == 100 and found.accumulate == 3
    repeats = found.timings[-1].repeats
    assert passes.count(100) == 1 + 3 * (2 * repeats - 1)  # memory is counted in one pass
    assert found.epoch(found.timings[-1])[0] == pytest.approx(found.timings[-1].seconds)


def test_without_budget_the_present_size_and_one_sample_are_timed_all_the_same():
    found = measure(written(mlp(), cut(*samples(300), 20)), budget_s=0.0)
    assert sizes(found) == [1, 20] and found.limit == "time" and "2 samples" in found.why
    assert all(t.repeats == 1 and math.isnan(t.error) and t.seconds > 0 for t in found.timings)
    assert found.line is not None and math.isfinite(found.line.per_sample_error)


class Limited(nn.Module):
    """Has memory for so many rows."""

    def forward(self, x):
        if len(x) > 50:
            raise torch.OutOfMemoryError(f"Tried to allocate memory for {len(x)} rows")
        return x


def test_sizes_end_where_memory_does():
    found = measure(written(mlp(extra=[Limited()]), cut(*samples(300), 20)), budget_s=20.0)
    assert sizes(found) == [1, 2, 4, 8, 16, 20, 32]
    assert found.limit == "memory" and "64 samples" in found.why and not found.refused


class Hoard(nn.Module):
    """Keeps a tenth of the memory that is free, a sample, which it does not fill and so does not take."""

    def forward(self, x):
        kept = torch.empty(len(x), available(x.device) // 10, dtype=torch.uint8)
        return x + Keep.apply(x, kept)


class Keep(torch.autograd.Function):
    """Nothing, of which a tensor is kept for the backward pass."""

    @staticmethod
    def forward(ctx, x, kept):
        ctx.save_for_backward(kept)
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def test_sizes_end_before_half_of_what_is_free_is_needed():
    found = measure(written(mlp(extra=[Hoard()]), cut(*samples(12), 2)), budget_s=20.0)
    assert sizes(found) == [1, 2, 4]
    assert found.limit == "memory" and "8 samples" in found.why and "GB" in found.why


def test_a_size_at_which_the_model_fails_is_named_and_the_others_go_on():
    found = measure(written(mlp(extra=[nn.BatchNorm1d(64)]), cut(*samples(100), 20)), budget_s=20.0)
    ((size, why),) = found.refused
    assert size == 1 and "more than 1 value per channel" in why
    assert sizes(found) == [2, 4, 8, 16, 20, 32, 64, 100]


def test_a_program_with_its_batch_size_written_down_runs_at_that_size_only():
    loss = lambda output, target: nn.functional.cross_entropy(output.view(20, -1), target)  # noqa: E731
    found = measure(written(mlp(), cut(*samples(100), 20), loss), budget_s=20.0)
    assert sizes(found) == [20]
    assert [size for size, _ in found.refused] == [1, 2, 4, 8, 16, 32, 64, 100]
    assert found.line is None and found.flat == found.best == 20


class Named(nn.Module):
    """Takes its inputs in a dictionary."""

    def __init__(self):
        super().__init__()
        self.body = mlp()

    def forward(self, inputs):
        return self.body(inputs["x"])


def test_of_batches_that_cannot_be_cut_the_present_size_is_timed():
    named = [({"x": x}, y) for x, y in cut(*samples(120), 20)]
    found = measure(written(Named(), named, batch_size=20), budget_s=1.0)
    assert sizes(found) == [20] and found.limit == "rows" and "cannot be cut" in found.why
    assert found.timings[0].repeats > 1


def test_texts_of_all_lengths_cannot_be_cut():
    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 3), nn.Flatten(0, 1))
    texts = [(torch.randint(0, 11, (4, n)), torch.randint(0, 3, (4 * n,))) for n in (5, 9, 7, 3, 8, 6)]
    found = measure(written(model, texts), budget_s=1.0)
    assert found.limit == "rows" and sizes(found) == [4]


def test_a_program_that_does_not_run_is_not_measurable():
    with pytest.raises(NotMeasurable, match=r"batch size of 20 failed.*no gradient"):
        measure(written(mlp(), cut(*samples(60), 20), lambda output, target: output.detach().sum()))


# --- how many samples -------------------------------------------------------------------------------------------------


def test_a_full_batch_recorded_at_every_step_counts_once():
    found = measure(written(mlp(), [samples(96)] * 12), budget_s=0.5)
    assert found.samples == found.present == 96


def test_samples_of_several_epochs_count_once():
    x, y = samples(100)
    mixed = [torch.randperm(100) for _ in range(4)]
    data = [batch for order in mixed for batch in cut(x[order], y[order], 16)]
    assert measure(written(mlp(), data), budget_s=0.0).samples == 100


def test_equal_samples_within_batches_all_count():
    x = torch.randint(0, 2, (160, 2)).float()
    found = measure(written(mlp(columns=2), cut(x, x[:, 0].long() ^ x[:, 1].long(), 16)), budget_s=0.0)
    assert found.samples == 160


def test_rows_that_were_drawn_tell_the_number():
    """Of a script over the full batch the copies train on a part."""
    x, y = samples(300)
    case = replace(written(mlp(), [(x[:240], y[:240])]), rows=Rows.of([(x, y)], 300))
    found = measure(case, budget_s=0.0)
    assert found.samples == found.present == 300
    again = replace(case, rows=Rows.of([(x, y)] * 5, 300))
    assert measure(again, budget_s=0.0).samples == 300


# --- what is measured -------------------------------------------------------------------------------------------------


def test_an_update_of_many_samples_takes_longer_and_an_epoch_shorter():
    found = measure(written(mlp(256, 256), cut(*samples(2048, 256), 64)), budget_s=12.0)
    first, last = found.timings[0], found.timings[-1]
    assert last.size >= 256
    assert last.seconds > 2 * first.seconds
    assert found.epoch(last)[0] < found.epoch(first)[0] / 2
    assert found.line.per_sample > 0


def test_memory_grows_by_what_a_sample_leaves_for_the_backward_pass():
    found = measure(written(mlp(), cut(*samples(128), 32)), budget_s=0.5)
    a_sample = 4 * (COLUMNS + 64 + CLASSES) + 8
    parameters = COLUMNS * 64 + 64 + 64 * CLASSES + CLASSES
    for timing in found.timings:
        assert timing.memory == a_sample * timing.size + 4 + 12 * parameters + 16


class Characters(nn.Module):
    """An LSTM that says the next token."""

    def __init__(self):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(17, 8), nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 17)

    def forward(self, tokens):
        return self.head(self.body(self.embed(tokens))[0]).flatten(0, 1)


def test_targets_of_all_times_are_cut_with_their_texts():
    tokens = torch.randint(0, 17, (60, 13))
    data = [(part[:, :-1], part[:, 1:].flatten()) for part in tokens.split(10)]
    found = measure(written(Characters(), data, batch_size=10), budget_s=20.0)
    assert sizes(found) == [1, 2, 4, 8, 10, 16, 32, 60]
    memory = {timing.size: timing.memory for timing in found.timings}
    assert memory[32] - memory[16] == pytest.approx(4 * (memory[8] - memory[4]), rel=0.25)  # the kernel pads its part


def fingerprint(model, optimizer, data):
    tensors = [*state_of(model).values(), *(p.grad for p in model.parameters() if p.grad is not None)]
    tensors += [v for entry in optimizer.state.values() for v in entry.values()] + [t for b in data for t in b]
    streams = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()
    parts = [t.detach().numpy().tobytes() for t in tensors] + [repr(streams).encode()]
    return hashlib.sha256(b"".join(parts)).hexdigest(), torch.get_num_threads(), torch.is_grad_enabled()


def test_nothing_is_touched():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
    )
    data = [(torch.randn(16, 1, 8, 8), torch.randint(0, 3, (16,))) for _ in range(6)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    nn.functional.cross_entropy(model(data[0][0]), data[0][1]).backward()
    optimizer.step()
    case = Problem(model, nn.CrossEntropyLoss(), data, optimizer=optimizer)
    before, own = fingerprint(model, optimizer, data), state_of(case.model)
    found = measure(case, budget_s=1.0)
    assert fingerprint(model, optimizer, data) == before
    assert all(torch.equal(value, own[name]) for name, value in state_of(case.model).items())
    assert sizes(found)[0] == 1  # normalized over the places of one image


def test_a_training_that_diverges_is_timed():
    model = mlp()
    case = Problem(model, nn.MSELoss(), [(torch.randn(16, 20), torch.randn(16, 10)) for _ in range(4)],
                   optimizer=torch.optim.SGD(model.parameters(), lr=1e20))  # fmt: skip
    assert all(timing.seconds > 0 for timing in measure(case, budget_s=1.0).timings)


# --- what follows from it ---------------------------------------------------------------------------------------------


def record(times, errors=None, **fields):
    made = [Timing(2**k, s, 0.0 if errors is None else errors[k], 5, 0) for k, s in enumerate(times)]
    known = {"present": 1, "samples": 1000, "accumulate": 1, "optimizer": "SGD", "device": "cpu", "threads": 1}
    return Throughput(tuple(made), (), **(known | fields), without="", limit="samples", why="")


def test_flat_and_best():
    found = record([1.0, 1.1, 1.4, 1.9, 1.3, 5.0])
    assert found.flat == 4  # the dip at 16 comes after a size that costs more
    assert found.best == 16


def test_noise_is_the_usual_relative_error():
    assert record([1.0, 2.0, 4.0], [0.1, 0.1, 0.04]).noise == pytest.approx(0.05)


def test_an_epoch_is_its_number_of_updates():
    found = record([1.0, 1.5], [0.1, 0.3], accumulate=5)
    assert found.epoch(found.timings[1]) == pytest.approx((1000 / 10 * 1.5, 1000 / 10 * 0.3))
    assert found.epoch(found.timings[1], 60_000)[0] == pytest.approx(9000)


def test_a_line_is_found_exactly():
    line = record([3e-3 + 2e-5 * 2**k for k in range(10)]).line
    assert line.fixed == pytest.approx(3e-3) and line.per_sample == pytest.approx(2e-5)


def test_errors_of_the_line_cover_the_truth():
    """Where times scatter by their errors, the figures scatter about the truth by theirs."""
    rng, misses = np.random.default_rng(0), []
    for _ in range(400):
        true = np.array([3e-3 + 2e-5 * 2**k for k in range(10)])
        line = record(true * (1 + 0.05 * rng.standard_normal(10)), 0.05 * true).line
        misses.append(((line.fixed - 3e-3) / line.fixed_error, (line.per_sample - 2e-5) / line.per_sample_error))
    assert np.abs(np.mean(misses, 0)).max() < 0.2
    assert np.std(misses, 0) == pytest.approx([1.0, 1.0], abs=0.2)


@pytest.mark.parametrize("repeats", [3, 5, 9, 30])
def test_error_of_a_median_is_its_scatter(repeats):
    draws = np.random.default_rng(0).standard_normal((4000, repeats))
    found = np.array([median(row.tolist()) for row in draws])
    assert found[:, 0] == pytest.approx(np.median(draws, 1))
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.15)


def test_late_times_do_not_move_the_median():
    assert median([1.0, 1.1, 1.2, 1.1, 1.0, 1.1, 90.0, 1.0, 1.1]) == pytest.approx((1.1, 0.05), abs=0.05)
    assert math.isnan(median([2.0])[1])

"""The meter's account, by a clock of the test's own."""

import pytest

from unstuck.capture import meter
from unstuck.capture.meter import Meter


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meter.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(meter, "own_clock", clock.perf_counter)
    return clock


def trained(clock: Clock, plain_s: float, looked_at_s: list[float], timed_s: float = 0.001) -> Meter:
    """A training of ten plain steps, then steps that were looked at, of which a timer saw `timed_s` each."""
    found = Meter(0.02)
    found.begin()
    for _ in range(10):
        clock.now += plain_s
        found.stepped(1, plain=True)
    for seconds in looked_at_s:
        with found.timed():
            clock.now += timed_s
        clock.now += seconds - timed_s
        found.stepped(1, plain=False)
    return found


def test_noise_of_the_steps_is_not_charged_to_watching(clock: Clock) -> None:
    # A step is 10 ms ± 4 ms whether it is looked at or not; looking takes 1 ms, which the timer sees.
    found = trained(clock, 0.010, [0.011 + noise for noise in (0.004, -0.004) * 10])
    assert found.unseen_s == pytest.approx(0.0, abs=4e-4)
    assert 20 * 0.001 < found.spent < 1.5 * 20 * 0.001  # the first looks, before the noise cancels, are priced high


def test_what_no_timer_saw_is_charged(clock: Clock) -> None:
    found = trained(clock, 0.010, [0.013] * 20)  # 1 ms timed, 2 ms more than a plain step
    assert found.unseen_s == pytest.approx(0.002, rel=1e-6)
    assert found.spent == pytest.approx(20 * 0.003, rel=0.01)


def test_a_falling_estimate_gives_nothing_back(clock: Clock) -> None:
    found = trained(clock, 0.010, [0.013] * 20)
    spent = found.spent
    for _ in range(20):  # looks that no longer cost more than a timer sees
        clock.now += 0.010
        found.stepped(1, plain=False)
        assert found.spent > spent
        spent = found.spent
    assert found.unseen_s == pytest.approx(0.0, abs=1e-9)


def test_a_pause_of_the_training_is_not_charged_to_watching(clock: Clock) -> None:
    found = trained(clock, 0.010, [0.011] * 14 + [5.0])
    assert found.unseen_s <= 0.002


def test_recording_is_allowed_in_proportion_to_the_training(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "ALLOWANCE_S", 0.0)
    found = trained(clock, 0.010, [])  # 0.1 s of training
    assert found.may_sample(0.5 * meter.USED * 0.02 * 0.1)
    assert not found.may_sample(2 * meter.USED * 0.02 * 0.1)


def test_the_kernels_that_a_gpu_loads_at_first_do_not_end_the_recording(clock: Clock) -> None:
    found = trained(clock, 0.010, [])
    found.spent = 0.2
    assert not found.may_sample(0.001)
    found.on_device = True
    assert found.may_sample(0.1) and not found.may_sample(0.5)


def test_the_next_look_comes_when_it_can_be_afforded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "ALLOWANCE_S", 0.0)
    found = trained(clock, 0.010, [])
    wait = found.steps_until(0.005)
    for _ in range(int(wait) + 1):
        clock.now += 0.010
        found.stepped(1, plain=True)
    assert found.may_sample(0.005)
    assert wait > 10


def test_a_validation_may_still_be_recorded_where_steps_may_not(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "ALLOWANCE_S", 0.0)
    found = trained(clock, 0.010, [])  # 0.1 s of training, 2 ms for watching
    between = (meter.USED + meter.KEPT_FREE) / 2
    for share, steps, validation in ((0, True, True), (between, False, True), (1, False, False)):
        found.spent = share * 0.02 * found.elapsed
        assert (found.may_sample(0.0), found.may_sample(0.0, meter.KEPT_FREE)) == (steps, validation)

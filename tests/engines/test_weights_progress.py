"""What a pull reports: speed, time left, and not too often."""

from __future__ import annotations

import pytest

from ouzel.engines.weights.disk import readable
from ouzel.engines.weights.progress import Meter, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reports() -> list[Progress]:
    return []


@pytest.fixture
def meter(clock: Clock, reports: list[Progress]) -> Meter:
    return Meter(reports.append, clock)


def test_speed_and_time_left(meter: Meter, clock: Clock, reports: list[Progress]) -> None:
    meter.begin("downloading", 1000, "part 1")
    assert reports == [Progress("downloading", 0, 1000, None, None, "part 1")]
    clock.now += 2
    meter.at(200)
    assert reports[-1] == Progress("downloading", 200, 1000, 100.0, 8.0, "part 1")


def test_what_was_there_already_is_no_speed(
    meter: Meter, clock: Clock, reports: list[Progress]
) -> None:
    meter.begin("downloading", 1000, done=900)
    clock.now += 1
    meter.at(910, "part 2")
    assert (reports[-1].speed, reports[-1].eta, reports[-1].detail) == (10.0, 9.0, "part 2")


def test_speed_follows_the_last_seconds(
    meter: Meter, clock: Clock, reports: list[Progress]
) -> None:
    meter.begin("downloading", 10**6)
    done = 0
    for _ in range(30):
        clock.now += 1
        done += 10
        meter.at(done)
    for _ in range(30):
        clock.now += 1
        done += 1000
        meter.at(done)
    assert reports[-1].speed == pytest.approx(1000)


def test_a_phase_is_reported_a_few_times_a_second(
    meter: Meter, clock: Clock, reports: list[Progress]
) -> None:
    meter.begin("verifying", 10_000)
    for done in range(1, 10_001):
        clock.now += 0.0001
        meter.at(done)
    assert len(reports) < 20
    assert reports[-1].done == 10_000


def test_standing_still_has_no_speed(meter: Meter, clock: Clock, reports: list[Progress]) -> None:
    meter.begin("downloading", 1000)
    clock.now += 5
    meter.at(0)
    assert (reports[-1].speed, reports[-1].eta) == (None, None)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (98_362_432, "98.4 MB"),
     (1_117_320_768, "1.12 GB"), (63_387_346_464, "63.4 GB"), (5 * 10**12, "5 TB")],
)  # fmt: skip
def test_sizes_for_people(count: int, text: str) -> None:
    assert readable(count) == text

from __future__ import annotations

import pytest

from ouzel.core.turns import Pace
from ouzel.engines.pace import PaceMeter


def test_before_the_first_reading_the_guess_is_told():
    assert PaceMeter(Pace(50, 20)).pace == Pace(50, 20)


def test_a_reading_takes_the_place_of_the_guess():
    meter = PaceMeter(Pace(50, 20))
    meter.prefilled(400, 4.0)
    meter.decoded(30, 3.0)
    assert meter.pace == Pace(100, 10)


def test_what_is_too_small_or_took_no_time_says_nothing():
    meter = PaceMeter(Pace(50, 20))
    meter.prefilled(31, 0.001)
    meter.decoded(7, 100.0)
    meter.prefilled(1000, 0.0)
    meter.decoded(1000, -1.0)
    assert meter.pace == Pace(50, 20)


def test_a_long_turn_weighs_more_than_a_short_one():
    meter = PaceMeter(Pace(50, 20))
    meter.decoded(400, 20.0)  # 20 a second
    meter.decoded(10, 1.0)  # 10 a second
    assert 19 < meter.pace.decode < 20


def test_old_readings_fade():
    meter = PaceMeter(Pace(50, 20))
    meter.decoded(256, 256 / 20)
    for _ in range(10):
        meter.decoded(256, 256 / 5)  # others decode beside it now
    assert meter.pace.decode == pytest.approx(5, rel=0.01)

"""The bench's numbers are right, also at the edges."""

from __future__ import annotations

import math
import statistics

import pytest
from bench.arithmetic import Aim, Row, decode_rate, differences, median, quantile, ratios
from hypothesis import given
from hypothesis import strategies as st

numbers = st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=50)


@given(numbers)
def test_quartiles_are_those_of_the_standard_library(values: list[float]) -> None:
    expected = statistics.quantiles(values, n=4, method="inclusive")
    found = [quantile(values, share) for share in (0.25, 0.5, 0.75)]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-3)


def test_quantiles_at_the_ends_and_of_one_value() -> None:
    assert quantile([3, 1, 2], 0) == 1
    assert quantile([3, 1, 2], 1) == 3
    assert median([7.0]) == 7.0


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], -0.1), ([1.0], 1.1)])
def test_a_quantile_that_cannot_be_is_an_error(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match=r"quantile|share"):
        quantile(values, share)


def test_pairs_that_do_not_pair_up_are_an_error() -> None:
    assert differences([3, 5], [1, 1]) == [2, 4]
    assert ratios([3, 5], [1, 2]) == [3, 2.5]
    for pairwise in (differences, ratios):
        with pytest.raises(ValueError, match=r"shorter|longer"):
            pairwise([1, 2], [1])


def test_the_decode_rate_counts_the_steps_between_tokens() -> None:
    assert decode_rate(11, first=2.0, last=3.0) == 10


@pytest.mark.parametrize(("tokens", "last"), [(1, 2.0), (5, 1.0), (5, 0.5)])
def test_no_rate_without_time_between_tokens(tokens: int, last: float) -> None:
    with pytest.raises(ValueError, match="no rate"):
        decode_rate(tokens, first=1.0, last=last)


@pytest.mark.parametrize(
    ("aim", "met", "missed"),
    [
        (Aim(">=", 0.97), 0.97, 0.9699),
        (Aim("<=", 15), 15, 15.1),
        (Aim(">", 700), 701, 700),
        (Aim("<", 150), 149.9, 150),
    ],
)
def test_verdicts(aim: Aim, met: float, missed: float) -> None:
    assert Row("it", met, "", aim).verdict == "ok"
    assert Row("it", missed, "", aim).verdict == "missed"
    assert Row("it", math.nan, "", aim).verdict == "missed"


def test_no_aim_no_verdict() -> None:
    assert Row("it", 1, "").verdict == ""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_kit import FakeTime

from ouzel.core.request import Effort
from ouzel.core.turns import Pace
from ouzel.loop.budget import ANSWER_SHARE, Clock, answer_tokens, thinking_tokens

EFFORTS = get_args(Effort)
PACES = st.builds(Pace, st.floats(1, 1e5), st.floats(0.1, 1e5))


def test_without_a_limit_there_is_always_time():
    clock = Clock(0, 0)
    assert not clock.limited
    assert clock.left() == math.inf
    assert answer_tokens(Pace(50, 10), clock.left()) is None


def test_the_time_runs_out_and_not_below_zero():
    now = FakeTime()
    clock = Clock(60, now.at, now)
    assert 50 < clock.left() < 60
    now.at += 30
    assert 20 < clock.left() < 30
    now.at += 1000
    assert clock.left() == 0


@pytest.mark.parametrize("native", [True, False])
def test_more_effort_is_never_less_thinking(native):
    tokens = [thinking_tokens(effort, native, Pace(1e5, 1e5), math.inf) for effort in EFFORTS]
    assert tokens == sorted(tokens)
    assert tokens[0] == 0
    assert tokens[-1] > tokens[2] > 0


@given(st.sampled_from(EFFORTS), st.booleans(), PACES, st.floats(0, 1e4))
def test_thinking_leaves_time_for_the_answer(effort, native, pace, left):
    tokens = thinking_tokens(effort, native, pace, left)
    assert 0 <= tokens <= thinking_tokens(effort, native, pace, math.inf)
    assert tokens / pace.decode <= left * (1 - ANSWER_SHARE) + 1e-6


@given(PACES, st.floats(0, 1e4))
def test_an_answer_is_at_least_one_token(pace, left):
    tokens = answer_tokens(pace, left)
    assert tokens is not None
    assert tokens >= 1
    assert tokens <= max(1, left * pace.decode)

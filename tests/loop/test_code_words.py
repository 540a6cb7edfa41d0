"""When running code pays, as far as can be seen; and what programs begin with."""

from __future__ import annotations

import contextlib
import io

import pytest

from ouzel.loop.code_words import examples, has_one_result, head, pays, ran

SURE = [
    "What is 17 * 23?",
    "What's 3847 times 9281?",
    "How many days are there between 3 March 2021 and 17 August 2024?",
    "Is 7919 a prime number?",
    "Plot y = x^2 from -5 to 5.",
    "How many r's are in strawberry?",
    "Compute the 20th Fibonacci number.",
    "Draw a bar chart of 3, 5 and 9.",
    "What is the square root of 1729 to 6 decimals?",
    "Solve x^2 - 5x + 6 = 0",
    "Sort these: 9, 3, 77, 12, 5",
    "What is 15% of 240?",
    "Convert 98.6 F to Celsius",
    "Count the vowels in 'the quick brown fox'",
    "Run print(2**100) for me",
    "Use Python to add them up, please.",
]
SOME = [
    "Janet had 22 green pens and 10 yellow pens. How many pens does she have altogether?",
    "Find the product of $6_8$ and $7_8$ in base 8.",
]
NONE = [
    "Hi!",
    "Thanks, that's great!",
    "Write a poem of 3 verses about 2 cats.",
    "What happened in 1989 and 1991 in Germany?",
    "My number is 555-1234, please write a polite note that I called at 5.",
    "Who painted the Mona Lisa?",
    "Explain what a prime number is.",
    "Give me 5 ideas for a birthday party for 10 children.",
    "Summarise World War 2 in 3 sentences.",
    "Write a Python function that adds two numbers.",
    "",
]


@pytest.mark.parametrize("message", SURE)
def test_surely(message: str) -> None:
    assert pays(message) == "sure"


@pytest.mark.parametrize("message", SOME)
def test_probably(message: str) -> None:
    assert pays(message) == "some"


@pytest.mark.parametrize("message", NONE)
def test_not_as_far_as_can_be_seen(message: str) -> None:
    assert pays(message) == "none"


def test_with_files_nearly_always() -> None:
    assert pays("Which region is best?", files=True) == "sure"
    assert pays("Thank you!", files=True) == "none"
    assert pays(
        "Thanks. And now the same for 2023, with the discount taken off, by month.", files=True
    )


def test_a_long_message_takes_no_time() -> None:
    """Patterns over what anybody may send must not run for seconds."""
    for piece in ("draw ", "1 ", "how many a", "$", "what is the a ", "convert ", "1*", "1", "1,"):
        pays(piece * 60_000)


def test_what_programs_begin_with() -> None:
    assert head("What is 17 * 23?", "") == ""
    long = "A farmer has 12 cows and 15 goats, sells 4 of each, and buys as many hens as are left."
    assert head(long, "") == ""
    assert has_one_result(long, "")
    assert not has_one_result(long, "Files: a.csv")
    assert not has_one_result("What is 17 * 23?", "")
    assert not has_one_result(f"{long} Draw it as a bar chart.", "")
    assert head(long, "Files: a.csv") == "import pandas as pd\n"
    assert (
        head("Plot column b.", "a.CSV") == "import pandas as pd\nimport matplotlib.pyplot as plt\n"
    )
    assert head("What does it say?", "Files: a.txt") == ""


def test_a_program_and_its_output_stay_apart_whatever_they_hold() -> None:
    assert ran("print(1)\n", "1\n") == "```python\nprint(1)\n```\n```output\n1\n```\n"
    fenced = ran("print('```')", "```")
    assert fenced.startswith("````python\n")
    assert fenced.endswith("````output\n```\n````\n")


def test_the_examples_are_right() -> None:
    """What the model is shown to copy is run here, where it can be."""
    shown = examples()
    assert [message.role for message in shown] == ["user", "assistant"] * 3
    for message in shown[1::2]:
        program, _, rest = message.text.removeprefix("```python\n").partition("\n```\n")
        output, _, answer = rest.removeprefix("```output\n").partition("\n```\n")
        number = f"{float(output):g}"
        assert number in answer
        if "sympy" not in program:
            written = io.StringIO()
            with contextlib.redirect_stdout(written):
                exec(program, {})
            assert written.getvalue().strip() == output

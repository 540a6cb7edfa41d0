from __future__ import annotations

from dataclasses import dataclass

import pytest
from loop_kit import ask

from hosted_tool import ConvertLength
from ouzel.core.errors import RequestError
from ouzel.core.request import CustomTool, FunctionTool, Grammar, HostedTool, ToolChoice
from ouzel.loop.toolbox import open_toolbox

A, B, C = FunctionTool("a"), FunctionTool("b"), CustomTool("c")
CONVERT = HostedTool("convert_length")
HOSTED = {"convert_length": ConvertLength()}


@dataclass
class Several:
    """A hosted tool that offers what its settings do not say."""

    names: tuple[str, ...]
    type: str = "several"

    def offer(self, asked: HostedTool) -> list[FunctionTool]:
        return [FunctionTool(name) for name in self.names]


def names(toolbox) -> list[str]:
    return [offer.name for offer in toolbox.callable]


def test_all_that_is_offered_may_be_called_in_the_order_of_the_request():
    toolbox = open_toolbox(ask(tools=(B, CONVERT, A, C)), HOSTED)
    assert names(toolbox) == ["b", "convert_length", "a", "c"]
    assert toolbox.open
    assert not toolbox.required


@pytest.mark.parametrize(
    ("choice", "callable_", "required"),
    [
        (ToolChoice("none"), [], False),
        (ToolChoice("required"), ["a", "b", "convert_length"], True),
        (ToolChoice("required", ("b",), "named"), ["b"], True),
        (ToolChoice("auto", ("a", "convert_length"), "allowed"), ["a", "convert_length"], False),
        (ToolChoice("required", ("convert_length",), "named"), ["convert_length"], True),
    ],
)
def test_the_choice_says_which(choice, callable_, required):
    toolbox = open_toolbox(ask(tools=(A, B, CONVERT), tool_choice=choice), HOSTED)
    assert names(toolbox) == callable_
    assert toolbox.required == required
    assert toolbox.open == bool(callable_)
    assert [offer.name for offer in toolbox.offers] == ["a", "b", "convert_length"]
    assert toolbox.find("b") is None or "b" in callable_


def test_a_hosted_tool_is_chosen_by_its_type_whatever_its_functions_are_called():
    choice = ToolChoice("auto", ("several",), "allowed")
    toolbox = open_toolbox(
        ask(tools=(A, HostedTool("several")), tool_choice=choice),
        {"several": Several(("open", "find"))},
    )
    assert names(toolbox) == ["open", "find"]


def test_after_a_call_nothing_must_be_called_and_shut_nothing_may():
    toolbox = open_toolbox(ask(tools=(A,), tool_choice=ToolChoice("required")), {})
    after = toolbox.after_a_call()
    assert (after.required, names(after)) == (False, ["a"])
    assert not toolbox.shut().open


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_where_nothing_is_left_to_call_it_is_not_open(mode):
    toolbox = open_toolbox(
        ask(tools=(HostedTool("several"),), tool_choice=ToolChoice(mode, ("several",), "named")),
        {"several": Several(())},
    )
    assert not toolbox.open
    assert not (toolbox.required and toolbox.open)


def refused(*tools, hosted=HOSTED) -> RequestError:
    with pytest.raises(RequestError) as caught:
        open_toolbox(ask(tools=tools), hosted)
    return caught.value


def test_two_of_one_name_are_refused():
    error = refused(A, B, FunctionTool("a"))
    assert (error.param, error.status) == ("tools[2]", 400)
    assert "'a'" in error.message


def test_a_function_may_not_have_the_name_of_a_hosted_ones():
    assert refused(CONVERT, FunctionTool("convert_length")).param == "tools[1]"


def test_a_hosted_tool_that_offers_a_name_twice_is_noticed():
    with pytest.raises(Exception, match="x"):
        open_toolbox(ask(tools=(HostedTool("several"),)), {"several": Several(("x", "x"))})


def test_a_hosted_tool_that_is_not_there_is_refused():
    error = refused(A, HostedTool("web_search"))
    assert (error.param, error.code) == ("tools[1].type", "unsupported_value")


class Picky(ConvertLength):
    """Does not like what it is asked."""

    def __init__(self, param: str | None) -> None:
        self._param = param

    def offer(self, asked: HostedTool):
        raise RequestError("Not like this.", param=self._param)


@pytest.mark.parametrize(("param", "place"), [("digits", "tools[1].digits"), (None, "tools[1]")])
def test_wrong_settings_are_told_with_their_place(param, place):
    error = refused(A, CONVERT, hosted={"convert_length": Picky(param)})
    assert error.param == place


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        (FunctionTool("f", "", '{"type": "nothing"}'), "tools[1].parameters"),
        (CustomTool("c", "", Grammar("regex", "(")), "tools[1].format.definition"),
        (CustomTool("c", "", Grammar("lark", "start: nope")), "tools[1].format.definition"),
    ],
)
def test_schemas_and_grammars_are_read_at_once(tool, param):
    error = refused(A, tool)
    assert error.param == param
    assert error.code


def test_an_error_does_not_keep_the_place_of_an_earlier_request():
    """Errors of a cache must not be shared: their place is."""
    bad = FunctionTool("f", "", '{"type": "nothing"}')
    assert refused(bad).param == "tools[0].parameters"
    assert refused(A, B, bad).param == "tools[2].parameters"

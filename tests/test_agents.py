"""Whole agent tasks on the default weights: `openai-agents`, as people write it, unchanged.

The task needs two tools, and the second one needs what the first one gave: the SDK sends the tools,
runs them, gives their results back and goes on until there is an answer.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from agents import (
    Agent,
    ItemHelpers,
    MessageOutputItem,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    RunResult,
    RunResultStreaming,
    ToolCallItem,
    ToolCallOutputItem,
    function_tool,
)
from openai import AsyncOpenAI

from served import Served, served

pytestmark = [pytest.mark.weights, pytest.mark.timeout(600)]

TASK = "How much does the customer petra@vogel.example owe us?"
MODELS = {"responses": OpenAIResponsesModel, "chat": OpenAIChatCompletionsModel}
# Nothing of a run may leave this machine.
QUIET = RunConfig(tracing_disabled=True)


@pytest.fixture(scope="module")
def real(default_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The default weights, served as `make run` does."""
    with served(tmp_path_factory.mktemp("agents")) as server:
        yield server


@pytest.fixture
async def client(real: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=real.url, api_key="none", max_retries=0, timeout=300) as client:
        yield client


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest, client: AsyncOpenAI) -> Model:
    """The served model, through each API in turn."""
    return MODELS[request.param](model="o4-mini", openai_client=client)


class Office:
    """Two tools, and what was really asked of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def agent(self, model: Model) -> Agent[None]:
        @function_tool
        def find_customer(email: str) -> str:
            """Find a customer by email; returns the customer id."""
            self.asked.append(("find_customer", email))
            return json.dumps({"customer_id": "C-204"})

        @function_tool
        def get_balance(customer_id: str) -> str:
            """Get what a customer owes, by customer id such as C-17."""
            self.asked.append(("get_balance", customer_id))
            if customer_id != "C-204":
                return json.dumps({"error": "unknown customer id"})
            return json.dumps({"owes": "87.50 euros"})

        return Agent(
            name="office",
            instructions="You help the staff of a shop.",
            model=model,
            model_settings=ModelSettings(temperature=0),
            tools=[find_customer, get_balance],
        )

    def check(self, result: RunResult | RunResultStreaming) -> None:
        """The tools ran in order with the right arguments, and the answer holds the result."""
        assert self.asked == [("find_customer", "petra@vogel.example"), ("get_balance", "C-204")]
        assert "87.5" in result.final_output
        calls = [item for item in result.new_items if isinstance(item, ToolCallItem)]
        outputs = [item for item in result.new_items if isinstance(item, ToolCallOutputItem)]
        assert len(calls) == len(outputs) == 2
        assert isinstance(result.new_items[-1], MessageOutputItem)
        assert [json.loads(call.raw_item.arguments) for call in calls] == [
            {"email": "petra@vogel.example"},
            {"customer_id": "C-204"},
        ]


async def test_an_agent_finishes_a_task_of_two_tools_and_is_asked_more(model: Model) -> None:
    office = Office()
    agent = office.agent(model)
    result = await Runner.run(agent, TASK, run_config=QUIET, max_turns=5)
    office.check(result)
    # The whole exchange goes back as the next one's input, calls and results included.
    said = result.to_input_list()
    said.append({"role": "user", "content": "Thanks! What was the customer id?"})
    again = await Runner.run(agent, said, run_config=QUIET, max_turns=5)
    assert "C-204" in again.final_output


async def test_an_agent_finishes_a_task_of_two_tools_streamed(model: Model) -> None:
    office = Office()
    result = Runner.run_streamed(office.agent(model), TASK, run_config=QUIET, max_turns=5)
    said: list[str] = []
    names: list[str] = []
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            said.append(event.data.delta)
        elif event.type == "run_item_stream_event":
            names.append(event.name)
    office.check(result)
    assert names == [*(["tool_called", "tool_output"] * 2), "message_output_created"]
    assert "".join(said) == ItemHelpers.text_message_outputs(result.new_items)

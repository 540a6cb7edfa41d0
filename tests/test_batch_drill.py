"""The drill of batches: a real server is killed midway, and no result is missing or twice."""

from __future__ import annotations

import json
import secrets
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import openai
import pytest
from openai.types import Batch

from served import served

LINES = 500
SLOTS = 8
KILLS = 2
ACCEPTED = -1
WITHIN = 120.0
SCRIPT = f"""
slots = {SLOTS}
[[reply]]
steps = [{{ say = "You said:" }}, {{ pause = 0.03 }}, {{ say = " {{input}}" }}]
"""


def wait(client: openai.OpenAI, batch_id: str, done: int) -> Batch:
    """The batch once so many of its lines have a result, or it has ended."""
    deadline = time.monotonic() + WITHIN
    while True:
        batch = client.batches.retrieve(batch_id)
        assert batch.request_counts is not None
        counts = batch.request_counts
        assert counts.completed + counts.failed <= LINES
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        if batch.status == "finalizing" and done <= LINES:
            return batch
        if batch.status == "in_progress":
            assert counts.total == LINES
            if counts.completed >= done:
                return batch
        assert time.monotonic() < deadline, batch
        time.sleep(0.02)


def request(number: int) -> str:
    body = {"model": "scripted", "input": f"line {number}", "metadata": {"number": str(number)}}
    line = {
        "custom_id": f"line-{number}",
        "method": "POST",
        "url": "/v1/responses",
        "body": body,
    }
    return json.dumps(line)


@pytest.mark.parametrize("when", ["at any moment", "accepted and done"])
def test_every_line_has_its_result_once_however_often_the_server_is_killed(
    tmp_path: Path, when: str
) -> None:
    """Killed at random; and as soon as it is accepted, and while its file is being made."""
    seed = secrets.randbelow(10**9)
    print("seed", seed)
    random = Random(seed)
    moments = [ACCEPTED, LINES]
    if when == "at any moment":
        moments = sorted(random.randrange(LINES * 9 // 10) for _ in range(KILLS))
    script, home = tmp_path / "script.toml", tmp_path / "home"
    script.write_text(SCRIPT)
    batch_id = ""
    for moment in [*moments, LINES + 1]:
        with (
            served(home, "--script", str(script)) as server,
            openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client,
        ):
            if not batch_id:
                data = "\n".join(map(request, range(LINES))).encode()
                file = client.files.create(file=("in.jsonl", data), purpose="batch")
                batch = client.batches.create(
                    input_file_id=file.id, endpoint="/v1/responses", completion_window="24h"
                )
                batch_id = batch.id
            if moment != ACCEPTED:
                wait(client, batch_id, 0)
                with suppress(openai.NotFoundError):  # the lines were copied by now
                    client.files.delete(file.id)
                batch = wait(client, batch_id, moment)
            if moment <= LINES:
                time.sleep(random.random() * 0.05)
                assert server.stop(signal.SIGKILL) == -signal.SIGKILL
                continue
            assert batch.status == "completed", batch
            assert batch.error_file_id is None
            assert batch.output_file_id is not None
            results = client.files.content(batch.output_file_id).text.splitlines()
            made = client.files.list(purpose="batch_output").data
    check(batch, [json.loads(line) for line in results])
    assert [file.id for file in made] == [batch.output_file_id]
    check_database(home / "ouzel.db")


def check(batch: Batch, results: list[dict]) -> None:
    assert [each["custom_id"] for each in results] == [f"line-{n}" for n in range(LINES)]
    assert len({each["id"] for each in results}) == LINES
    tokens = 0
    for number, each in enumerate(results):
        assert (each["error"], each["response"]["status_code"]) == (None, 200)
        body = each["response"]["body"]
        assert body["output"][-1]["content"][0]["text"] == f"You said: line {number}"
        assert body["metadata"] == {"number": str(number)}
        tokens += body["usage"]["total_tokens"]
    counts = batch.request_counts
    assert counts is not None
    assert (counts.total, counts.completed, counts.failed) == (LINES, LINES, 0)
    assert batch.usage is not None
    assert batch.usage.total_tokens == tokens


def check_database(path: Path) -> None:
    """It is whole; and only lines that were under way when it was killed ran once more."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        runs = database.execute("SELECT count(*) FROM runs").fetchone()[0]
        assert LINES <= runs <= LINES + KILLS * (SLOTS - 1)
        assert database.execute("SELECT count(*) FROM batch_lines").fetchone() == (0,)

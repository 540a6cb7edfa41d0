"""Rows as earlier versions wrote them, word for word: what is on people's disks does not change
when the code does."""

from __future__ import annotations

import json

RUN_0001 = """{"id":"chatcmpl-1","owner":"alice","model":"scripted","created_at":1.25,"request":
{"protocol":"chat","model":"o4-mini","input":[{"id":"msg_q","role":"user","parts":[{"text":
"How many legs?","logprobs":[],"kind":"text"}],"status":"completed","name":null,"kind":"message"}],
"instructions":null,"sampling":{"temperature":null,"top_p":null,"presence_penalty":null,
"frequency_penalty":null,"seed":null,"stop":[],"logit_bias":{},"top_logprobs":null},
"max_output_tokens":null,"previous_id":null,"store":true,"metadata":{"topic":"birds"},"labels":{}},
"status":"completed","output":[{"id":"msg_a","role":"assistant","parts":[{"text":"Two.",
"logprobs":[],"kind":"text"}],"status":"completed","name":null,"kind":"message"}],"usage":
{"input_tokens":20,"cached_tokens":0,"output_tokens":3,"reasoning_tokens":0},"failure":null,
"incomplete":null,"finished_at":2.25}"""

EVENTS_0001 = """[{"kind":"run_started"},{"index":0,"item":{"id":"msg_a","role":"assistant","parts":
[{"text":"Two.","logprobs":[],"kind":"text"}],"status":"completed","name":null,"kind":"message"},
"kind":"item_done"},{"status":"completed","usage":{"input_tokens":20,"cached_tokens":0,
"output_tokens":3,"reasoning_tokens":0},"at":2.25,"failure":null,"incomplete":null,"kind":
"run_finished"}]"""

RUN_0002 = """{"id":"resp_2","owner":"alice","model":"scripted","created_at":3.25,"request":
{"protocol":"responses","model":"o4-mini","input":[{"id":"msg_q","role":"user","parts":[{"text":
"How many wings?","logprobs":[],"annotations":[],"kind":"text"}],"status":"completed","name":null,
"kind":"message"}],"instructions":null,"sampling":{"temperature":null,"top_p":null,
"presence_penalty":null,"frequency_penalty":null,"seed":null,"stop":[],"logit_bias":{},
"top_logprobs":null},"max_output_tokens":null,"previous_id":"chatcmpl-1","store":true,"metadata":
{"topic":"birds"},"labels":{},"tools":[],"tool_choice":{"mode":"auto","names":null,"form":"mode"},
"parallel_tool_calls":true,"max_tool_calls":null,"effort":null,"summary":null,"format":{"type":
"text","name":"","description":null,"schema":"{}","strict":null},"verbosity":"medium",
"answer_within":null,"include":[]},"status":"in_progress","output":[],"usage":null,"failure":null,
"incomplete":null,"finished_at":null,"tally":{}}"""

FILE_0002 = ("file-1", "alice", "birds.txt", 5, "user_data", "text/plain", 4.25, None)


def insert_run(body: str) -> tuple[str, tuple[object, ...]]:
    """The row of a run, as versions 0001 and 0002 wrote it."""
    run = json.loads(body)
    row = {name: run[name] for name in ("id", "owner", "created_at", "status", "model")}
    row |= {name: run["request"][name] for name in ("protocol", "previous_id")}
    row["body"] = body.encode()
    names, places = ", ".join(row), ", ".join("?" for _ in row)
    return f"INSERT INTO runs ({names}) VALUES ({places})", tuple(row.values())

"""URLs, headers and framing that no well-meaning client sends, each with its one answer.

As in `test_hostile_requests.py`, which has the bodies.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_kit import Background, Bad, background, connect, exchange, read_reply, refuse, request

from doubles import scripted
from wire import checks

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "o4-mini", "input": "hi"}
SOMEWHERE = "/v1/responses/resp_0000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    with background(scripted(window=2000), tmp_path_factory.mktemp("home")) as running:
        yield running


def url(
    target: str, code: str, param: str | None = None, status: int = 404, method: str = "GET"
) -> Bad:
    return Bad(f"{method} {target[:50]!r}", request(target, method=method), code, param, status)


PATHS = [
    url("/v1/responses/%00", "not_found"),
    url("/v1/responses/..", "not_found"),
    url("/v1/responses/%2e%2e", "not_found"),
    url("/v1/responses/..%2fmodels", "unknown_url"),
    url("/v1/responses/a/b/c", "unknown_url"),
    url("/v1/responses/resp_1%0aERROR%20forged", "not_found"),
    url("/v1/responses/%ed%a0%80", "not_found"),
    url("/v1/responses/%", "not_found"),
    url("/v1/responses/" + "a" * 257, "not_found"),
    url("/v1/responses/" + "a" * 50_000, "not_found"),
    url("/v1/responses/resp_0000", "not_found"),
    url("/v1/responses/resp_0000/input_items", "not_found"),
    url("/v1/responses/resp_0000", "not_found", method="DELETE"),
    url("/v1/responses/resp_0000/cancel", "not_found", method="POST"),
    url("/v1/responses/%00/cancel", "not_found", method="POST"),
    url("/v1/responses/", "unknown_url"),
    url("//v1/responses", "unknown_url"),
    url("/V1/Models", "unknown_url"),
    url("/v1", "unknown_url"),
    url("/", "unknown_url"),
    url("*", "unknown_url", method="OPTIONS"),
    url("/v1/models/gpt-9", "model_not_found", "model"),
    url("/v1/models/" + "%2e%2e/" * 3, "model_not_found", "model"),
    url("/v1/responses", "method_not_allowed", status=405),
    url("/v1/responses", "method_not_allowed", status=405, method="PUT"),
    url("/v1/responses", "method_not_allowed", status=405, method="OPTIONS"),
    url("/v1/chat/completions", "method_not_allowed", status=405, method="PATCH"),
    url("/v1/chat/completions", "method_not_allowed", status=405, method="TRACE"),
    url("/v1/responses/resp_0/cancel", "method_not_allowed", status=405),
    url("/v1/models", "method_not_allowed", status=405, method="DELETE"),
    url("/health", "method_not_allowed", status=405, method="POST"),
]


def query(target: str, param: str, code: str, method: str = "GET") -> Bad:
    return url(target, code, param, 400, method)


QUERIES = [
    query(f"{RESPONSES}?stream=true", "stream", "unknown_parameter", "POST"),
    query(f"{CHAT}?api-version=1", "api-version", "unknown_parameter", "POST"),
    query("/v1/models?limit=5", "limit", "unknown_parameter"),
    query("/v1/models/o4-mini?x", "x", "unknown_parameter"),
    query(f"{SOMEWHERE}?stream=true&starting_after=x", "starting_after", "invalid_value"),
    query(f"{SOMEWHERE}?stream=true&starting_after=-1", "starting_after", "invalid_value"),
    query(f"{SOMEWHERE}?stream=perhaps", "stream", "invalid_value"),
    query(f"{SOMEWHERE}?stream=false&stream=true", "stream", "invalid_value"),
    query(f"{SOMEWHERE}?starting_after=3", "starting_after", "invalid_parameter_combination"),
    query(f"{SOMEWHERE}?include=everything", "include[0]", "invalid_value"),
    query(f"{SOMEWHERE}?include_obfuscation=1", "include_obfuscation", "unsupported_parameter"),
    query(f"{SOMEWHERE}?%00=1", "\0", "unknown_parameter"),
    query(f"{SOMEWHERE}?%ff%fe=1", "\ufffd\ufffd", "unknown_parameter"),
    query(f"{SOMEWHERE}?{'q' * 9000}=1", "q" * 64 + "…", "unknown_parameter"),
    query(f"{SOMEWHERE}?=", "", "unknown_parameter"),
    query(f"{SOMEWHERE}?x=1", "x", "unknown_parameter", "DELETE"),
    query(f"{SOMEWHERE}/cancel?x=1", "x", "unknown_parameter", "POST"),
    *(
        query(f"{SOMEWHERE}/input_items?limit={odd}", "limit", "invalid_value")
        for odd in ("0", "101", "01000", "-1", "1e1", "1.0", "%D9%A3", "9" * 5000, "%20", "+5")
    ),
    query(f"{SOMEWHERE}/input_items?limit=1&limit=2", "limit", "invalid_value"),
    query(f"{SOMEWHERE}/input_items?limit[]=1", "limit[]", "unknown_parameter"),
    query(f"{SOMEWHERE}/input_items?order=ASC", "order", "invalid_value"),
    query(f"{SOMEWHERE}/input_items?order=" + "z" * 999, "order", "invalid_value"),
]


def post(name: str, code: str, *headers: str, status: int = 400, raw: bytes | None = None) -> Bad:
    data = request(RESPONSES, json.dumps(ASK).encode() if raw is None else raw, *headers)
    return Bad(name, data, code, None, status)


def http(name: str, head: str, code: str = "invalid_http", status: int = 400) -> Bad:
    data = head.replace("\n", "\r\n").encode("utf-8", "surrogateescape")
    return Bad(name, data, code, None, status)


POST = "POST /v1/responses HTTP/1.1\nhost: localhost\n"
UNREAD = "unsupported_content_encoding"
MOST = 32 * 1024 * 1024
HTTP = [
    post("gzip", UNREAD, "content-encoding: gzip", status=415, raw=gzip.compress(b"{}")),
    post("said to be gzip", UNREAD, "content-encoding: GZIP", status=415),
    post("brotli", UNREAD, "content-encoding: br", status=415),
    post("two encodings", UNREAD, "content-encoding: identity, gzip", status=415),
    post("encodings twice", "duplicate_header", *["content-encoding: identity"] * 2),
    post("host twice", "duplicate_header", "host: evil.example"),
    Bad(
        "a rebound name",
        request("/health", method="GET").replace(b"localhost", b"evil" * 999),
        "forbidden_host",
        status=403,
    ),
    post("key twice", "duplicate_header", *["authorization: Bearer x"] * 2),
    post("another's page", "forbidden_origin", "origin: https://evil.example", status=403),
    post("a page like ours", "forbidden_origin", "origin: http://[::1]evil.example", status=403),
    post("too large", "request_too_large", f"content-length: {MOST + 1}", status=413, raw=b"{"),
    post("absurdly large", "request_too_large", "content-length: 999999999999999999", status=413),
    post("a length beyond 64 bits", "invalid_http", f"content-length: {10**30}"),
    post("a negative length", "invalid_http", "content-length: -5"),
    post("a length in words", "invalid_http", "content-length: five"),
    post("two lengths", "invalid_http", "content-length: 5", "content-length: 6"),
    post("a length and chunks", "invalid_http", "content-length: 5", "transfer-encoding: chunked"),
    post("a header without name", "invalid_http", ": value"),
    post("a header with a blank", "invalid_http", "a b: c"),
    post("a NUL in a header", "invalid_http", "x: a\0b"),
    post("a folded header", "invalid_http", "x: a\r\n b"),
    post("a head too large", "headers_too_large", f"x: {'h' * 300_000}", status=431),
    http("chunks of no size", POST + "transfer-encoding: chunked\n\nZZ\n"),
    http("a chunk cut short", POST + "transfer-encoding: chunked\n\n2\n{}}}\n"),
    http("no version", "GET /v1/models\n\n"),
    http("a version to come", "GET /v1/models HTTP/9.9\nhost: localhost\n\n"),
    http("no method", "HELLO /v1/models HTTP/1.1\nhost: localhost\n\n"),
    http("a proxy's request", "CONNECT example.org:443 HTTP/1.1\nhost: localhost\n\n"),
    http("bytes in the URL", "GET /v1/models/\udcff HTTP/1.1\nhost: localhost\n\n"),
    http("a blank in the URL", "GET /v1/ models HTTP/1.1\nhost: localhost\n\n"),
    http("a URL without end", f"GET /{'u' * 300_000}", "headers_too_large", 431),
    http("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    Bad(
        "cancel with a body",
        request(f"{SOMEWHERE}/cancel", {"reason": "bored"}),
        "unknown_parameter",
        "reason",
    ),
    Bad(
        "delete with a body",
        request(SOMEWHERE, {"force": True}, method="DELETE"),
        "unknown_parameter",
        "force",
    ),
    Bad("cancel with no JSON", request(f"{SOMEWHERE}/cancel", b"now"), "invalid_json"),
]

ALL = [*PATHS, *QUERIES, *HTTP]


@pytest.mark.parametrize("bad", ALL, ids=[bad.name for bad in ALL])
def test_each_is_refused_in_its_own_way(server: Background, bad: Bad) -> None:
    refuse(server, bad)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/v1/models", 200),
        ("HEAD", "/v1/models/gpt-9", 404),
        ("HEAD", "/v1/responses/resp_0000", 404),
        ("HEAD", "/v1/responses", 405),
    ],
)
def test_a_head_has_the_headers_only(
    server: Background, method: str, path: str, status: int
) -> None:
    reply = exchange(server.port, request(path, None, method=method), method)
    assert (reply.status, reply.body) == (status, b"")
    assert reply.headers["x-request-id"].startswith("req_")
    assert int(reply.headers["content-length"]) > 0


def test_what_is_odd_but_right_is_answered(server: Background) -> None:
    for data in (
        request(RESPONSES, ASK, "connection: Upgrade, HTTP2-Settings", "upgrade: h2c"),
        request(RESPONSES, ASK, "connection: upgrade", "upgrade: websocket"),
        request(RESPONSES, ASK, "content-encoding: identity"),
        request(RESPONSES, ASK, "content-type: text/plain"),
        request(RESPONSES, ASK, "authorization: Bearer anything"),
        request(RESPONSES, ASK, "x-odd: \xff\xfe"),
        request(RESPONSES, ASK, version="1.0"),
        request(RESPONSES, b'{"model": "x", "model": "o4-mini", "input": "hi"}'),
        request(RESPONSES, ASK | {"input": "a\0b\u2028\U0010ffff", "temperature": None}),
        request("http://elsewhere.example/v1/responses", ASK),
        b"\r\n\r\n" + request(RESPONSES, ASK),
        request(RESPONSES, b"", "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")
        + b"%x;odd=1\r\n%b\r\n0\r\nhost: evil.example\r\n\r\n"
        % (len(json.dumps(ASK)), json.dumps(ASK).encode()),
    ):
        reply = exchange(server.port, data)
        assert reply.status == 200, (data, reply.body)
        checks.check_response(reply.body)


def test_a_body_is_asked_for_where_the_client_waits_for_that(server: Background) -> None:
    head, _, content = request(RESPONSES, ASK, "expect: 100-continue").partition(b"\r\n\r\n")
    with connect(server.port) as client:
        client.sendall(head + b"\r\n\r\n")
        assert client.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(content)
        assert read_reply(client).status == 200
    refused = head.replace(b"content-length: ", b"content-length: 99999999")
    with connect(server.port) as client:
        client.sendall(refused + b"\r\n\r\n")
        assert read_reply(client).status == 413


def test_the_server_is_none_the_worse(server: Background) -> None:
    reply = exchange(server.port, request(RESPONSES, ASK))
    assert checks.check_response(reply.body)["status"] == "completed"
    server.at_rest()

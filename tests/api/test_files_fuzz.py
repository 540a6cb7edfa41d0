"""Made-up forms, headers, bodies and URLs against files, uploads and containers: never a 500.

What is tried does not change from run to run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from files_kit import (
    BOUNDARY,
    FORM,
    Field,
    check,
    check_page,
    form,
    real_containers,
    real_jail,
)
from hostile_kit import Background, Reply, background, exchange, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doubles import scripted
from ouzel.store import open_files, open_store
from wire.checks import check_error

KIND = f"content-type: {FORM['content-type']}"


def fuzzed(examples: int) -> settings:
    """So many examples, the same ones each time, however slow the machine is."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    home = tmp_path_factory.mktemp("home")
    store = open_store(home / "files.db")
    files = open_files(store, home / "files")
    rooms = real_containers(home / "rooms", files, asyncio.run(real_jail(home)))
    with background(scripted(), home, files=files, containers=rooms) as running:
        running.call(rooms.start)
        yield running
        running.call(rooms.close)
        running.at_rest()
        running.call(files.close)
        running.call(store.close)


def post(server: Background, path: str, body: bytes, *headers: str) -> Reply:
    return exchange(server.port, request(path, body, *headers, "connection: close"))


def judge(reply: Reply, kind: str) -> int:
    """Check an answer, whatever it is; its status."""
    if reply.status == 200:
        check(kind, reply.body)
    else:
        assert 400 <= reply.status < 500, reply
        check_error(reply.body)
    return reply.status


@pytest.fixture(scope="module")
def upload(server: Background) -> str:
    asked = {"filename": "f", "purpose": "vision", "bytes": 9, "mime_type": "a/b"}
    body = post(server, "/v1/uploads", json.dumps(asked).encode()).body
    return str(check("upload", body)["id"])


@pytest.fixture(scope="module")
def container(server: Background) -> str:
    body = post(server, "/v1/containers", b'{"name": "c"}').body
    return str(check("container", body)["id"])


names = st.sampled_from(
    ["file", "purpose", "data", "file_id", "expires_after[anchor]", "expires_after[seconds]"]
) | st.text(st.characters(exclude_characters='"\r\n', exclude_categories=["Cs"]), max_size=8)
values = (
    st.sampled_from(["user_data", "batch", "created_at", "3600", "-1", "", "file-x"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.binary(max_size=12)
)
filenames = st.none() | st.text(st.characters(exclude_characters='"\r\n'), max_size=12)
headers = st.lists(
    st.sampled_from(["content-type: text/html", "content-transfer-encoding: base64", "x:", ":"]),
    max_size=2,
).map(tuple)
fields = st.builds(Field, names, values, filenames, headers)
forms = st.lists(fields, max_size=5)


@fuzzed(250)
@given(forms, st.data())
def test_any_form_is_answered(
    server: Background, upload: str, container: str, parts: list[Field], data: st.DataObject
) -> None:
    body = bytearray(form(*parts))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 6))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"\r\n", b"--", b"--" + BOUNDARY.encode()])
        )
    for path, kind in (
        ("/v1/files", "file"),
        (f"/v1/uploads/{upload}/parts", "upload.part"),
        (f"/v1/containers/{container}/files", "container.file"),
    ):
        judge(post(server, path, bytes(body), KIND), kind)


files_ok = st.permutations(
    [
        Field("purpose", "vision"),
        Field("file", b"0123456789", "f"),
        Field("expires_after[anchor]", "created_at"),
        Field("expires_after[seconds]", "7200"),
    ]
)


@fuzzed(24)
@given(files_ok)
def test_every_order_of_fields_is_right(server: Background, parts: list[Field]) -> None:
    made = check("file", post(server, "/v1/files", form(*parts), KIND).body)
    assert made["expires_at"] - made["created_at"] == 7200
    assert made["bytes"] == 10


@fuzzed(100)
@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60))
def test_any_content_type_is_answered(server: Background, content_type: str) -> None:
    for given_type in (content_type, f"multipart/form-data;{content_type}"):
        line = f"content-type: {given_type}".encode("latin-1")
        head = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + line
        body = form(Field("purpose", "vision"), Field("file", b"x", "f"))
        data = head + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        judge(exchange(server.port, data), "file")


@pytest.fixture(scope="module")
def kept(server: Background) -> str:
    parts = (Field("purpose", "vision"), Field("file", bytes(range(100)), "f"))
    return str(check("file", post(server, "/v1/files", form(*parts), KIND).body)["id"])


ranges = st.text("bytes=-,0123456789 ", max_size=20) | st.builds(
    lambda a, b: f"bytes={a}-{b}", st.integers(0, 10**20) | st.just(""), st.integers(0, 120)
)
tags = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12) | st.just("*")


@fuzzed(200)
@given(ranges, st.none() | tags, st.none() | tags, st.sampled_from(["GET", "HEAD"]))
def test_any_range_is_answered(
    server: Background,
    kept: str,
    asked: str,
    if_range: str | None,
    if_none: str | None,
    method: str,
) -> None:
    lines = [f"range: {asked}"]
    lines += [f"if-range: {if_range}"] if if_range is not None else []
    lines += [f"if-none-match: {if_none}"] if if_none is not None else []
    data = request(f"/v1/files/{kept}/content", None, *lines, "connection: close", method=method)
    reply = exchange(server.port, data, method)
    whole = bytes(range(100))
    if method == "HEAD":
        assert reply.body == b""
        assert reply.status in (200, 304)
    elif reply.status == 206:
        span, _, size = reply.headers["content-range"].removeprefix("bytes ").partition("/")
        first, _, last = span.partition("-")
        assert size == "100"
        assert reply.body == whole[int(first) : int(last) + 1] != b""
    elif reply.status == 416:
        assert reply.headers["content-range"] == "bytes */100"
        check_error(reply.body)
    else:
        assert reply.status in (200, 304)
        assert reply.body == (whole if reply.status == 200 else b"")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["vision", "created_at", "last_active_at", "disabled", "1g", "text/csv"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["anchor", "seconds", "minutes", "type", "x"]), inner)
    ),
    max_leaves=6,
)
json_names = st.sampled_from(
    [
        "filename", "purpose", "bytes", "mime_type", "expires_after", "part_ids", "md5", "name",
        "file_ids", "memory_limit", "network_policy", "skills", "file_id", "other",
    ]
)  # fmt: skip


@fuzzed(250)
@given(st.dictionaries(json_names, json_values, max_size=6), st.booleans())
def test_any_body_is_answered(
    server: Background, upload: str, container: str, body: dict[str, object], right: bool
) -> None:
    if right:
        asked = {"filename": "f", "purpose": "vision", "bytes": 9, "mime_type": "a/b", "name": "c"}
        body = {**asked, **body}
    raw = json.dumps(body).encode()
    judge(post(server, "/v1/uploads", raw), "upload")
    judge(post(server, "/v1/containers", raw), "container")
    judge(post(server, f"/v1/uploads/{upload}/complete", raw), "upload")
    judge(post(server, f"/v1/containers/{container}/files", raw), "container.file")


id_bytes = st.text(st.characters(max_codepoint=0x2FF), max_size=12).map(
    lambda text: "".join(f"%{byte:02x}" for byte in text.encode()) or "x"
)
queries = st.lists(
    st.tuples(
        st.sampled_from(["limit", "order", "after", "purpose", "name"]) | id_bytes,
        st.sampled_from(["1", "asc", "desc", "vision", ""]) | id_bytes,
    ),
    max_size=3,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))


@fuzzed(250)
@given(
    method=st.sampled_from(["GET", "DELETE", "POST", "PUT"]),
    root=st.sampled_from(["/v1/files", "/v1/uploads", "/v1/containers", "/v1/containers/{}/files"]),
    leaf=st.sampled_from(["", "/", "/{}", "/{}/content", "/{}/files", "/{}/parts", "/{}/files/{}"]),
    some_id=id_bytes,
    query=queries,
)
def test_any_url_is_answered(
    server: Background, method: str, root: str, leaf: str, some_id: str, query: str
) -> None:
    path = (root + leaf).replace("{}", some_id)
    lines = ("connection: close",)
    reply = exchange(server.port, request(f"{path}?{query}", b"", *lines, method=method), method)
    assert reply.status < 500, reply
    if reply.status != 200:
        check_error(reply.body)
    elif json.loads(reply.body)["object"] == "list":
        check_page("file" if root == "/v1/files" else "container", reply.body)

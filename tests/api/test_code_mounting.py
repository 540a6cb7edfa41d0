"""Which file a name in a container is: never another one that happens to be called the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from files_kit import real_containers, real_files, real_jail

from ouzel.core.contracts import Asker
from ouzel.core.files import ContainerSpec
from ouzel.core.items import File, Message, Text
from ouzel.core.request import HostedTool
from ouzel.tools.code_interpreter import CodeInterpreter

OWNER = "local"
OLD, OTHER = b"a,b\n1,2\n", b"a,b\n3,4\n"


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.mark.parametrize(("content", "names"), [(OTHER, ["data-2.csv"]), (OLD, ["data.csv"])])
async def test_a_new_file_of_the_same_name_and_size(
    tmp_path: Path, content: bytes, names: list[str]
) -> None:
    async with real_files(tmp_path / "kept") as files:
        rooms = real_containers(tmp_path / "rooms", files, await real_jail(tmp_path))
        await rooms.start()
        try:
            box = await rooms.create(OWNER, ContainerSpec())
            await rooms.put(box.id, OWNER, "data.csv", chunks(OLD))
            file = await files.create(OWNER, "data.csv", "user_data", chunks(content))
            said = Message("msg_1", "user", (File(file.id, file.name), Text("Sum up b.")))
            tool = CodeInterpreter(rooms, files)
            asked = HostedTool("code_interpreter", json.dumps({"container": box.id}))
            prepared = await tool.prepare(asked, Asker(OWNER, (said,)))
            mounts = json.loads(prepared.asked.settings)["mounts"]
            assert [mount["name"] for mount in mounts] == names
            assert all(name in prepared.note for name in (*names, "data.csv"))
        finally:
            await rooms.close()

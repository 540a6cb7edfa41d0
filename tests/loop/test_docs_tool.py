"""The example in docs/add-a-tool.md is the tool that the tests run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "add-a-tool.md").read_text()


def test_the_pages_code_is_the_tests_tool():
    code = (ROOT / "tests" / "hosted_tool.py").read_text()
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        assert block in code
    # What the page leaves out is imports, the docstring and the table of units.
    left = code
    for block in blocks:
        left = left.replace(block, "")
    names = re.findall(r"^(?:class|def|async def) (\w+)", left, re.MULTILINE)
    assert names == []


def test_the_files_that_the_page_names_are_there():
    for name in re.findall(r"`((?:tests|docs|build|core)/[\w/.-]+\.(?:py|md))`", PAGE):
        place = ROOT / name if name.startswith(("tests", "docs")) else ROOT / "src/ouzel" / name
        assert place.is_file(), name
    for name in re.findall(r"\]\(([\w/.-]+\.md)\)", PAGE):
        assert (ROOT / "docs" / name).is_file(), name

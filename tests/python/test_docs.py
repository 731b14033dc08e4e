# SPDX-License-Identifier: MIT
"""The programs in the documentation run, and write what the block after each says."""
import pathlib
import re

import programs
import pytest
from support import ours

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```\n\n```\n(.*?)^```$", re.M | re.S)
FOUND = [pytest.param(*block, id=f"{page}-{number}")
         for page in ("README.md", "docs/python.md")
         for number, block in enumerate(BLOCK.findall((ROOT / page).read_text()), 1)]


@ours
@pytest.mark.parametrize("program, expected", FOUND)
def test_program(program, expected, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(program)
    assert programs.Run([file], tmp_path, tmp_path).end() == expected


def test_each_program_was_found():
    """All blocks of Python have their output behind them."""
    pages = (ROOT / "README.md", ROOT / "docs/python.md")
    assert len(FOUND) == sum(page.read_text().count("```python\n") for page in pages)

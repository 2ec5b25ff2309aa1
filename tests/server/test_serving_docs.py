"""What docs/serving.md shows works as it is shown."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import listening

if TYPE_CHECKING:
    from crossrag.server.service import Service

SHOWN = Path(__file__).parents[2] / "docs" / "serving.md"
EXPECTED = ["candidates", "restore command", "event: done", "added", "notes.md", "relevance_score"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_curl_works(make: Callable[..., Service], tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes\n\nBread is baked on Mondays.\n", encoding="utf-8")
    commands = re.findall(r"^    (curl .*)$", SHOWN.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == len(EXPECTED)
    with listening(make()) as found:
        for command, expected in zip(commands, EXPECTED, strict=True):
            asked = shlex.split(command.replace("http://127.0.0.1:8777", found.url))
            said = subprocess.run(
                [*asked, "--silent", "--show-error", "--fail-with-body"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert said.returncode == 0, f"{command}\n{said.stdout}{said.stderr}"
            assert expected in said.stdout
            assert "-N" in asked or json.loads(said.stdout)

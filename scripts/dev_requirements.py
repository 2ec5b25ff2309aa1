"""Print the `dev` dependency group, one requirement a word, for a pip that does not know groups yet."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
print(" ".join(requirement.replace(" ", "") for requirement in project["dependency-groups"]["dev"]))

"""Changed settings: as `Settings`, and as a settings file that keeps what stood there before."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.errors import UsageError

if TYPE_CHECKING:
    from crossrag.config import Settings

Changes = Mapping[str, Any]
"""`section.key` -> value."""


def with_changes(settings: Settings, changes: Changes) -> Settings:
    """The same settings but for some."""
    # What nobody set stays so: whether index.store was given decides where the index is.
    content = settings.model_dump(exclude_unset=True)
    for name, value in changes.items():
        section, _, setting = name.partition(".")
        content.setdefault(section, {})[setting] = value
    return settings.__class__.model_validate(content)


def write_settings(changes: Changes, path: Path, *, start: Path, remark: str) -> None:
    """Write a settings file: what `start` says, if it is there, with the changes above it.

    Args:
        changes: What is to be set.
        path: Written; what is there is replaced.
        start: A settings file that was read before, so its TOML is sound.
        remark: For the first line.

    Raises:
        UsageError: It cannot be written.
    """
    content: dict[str, dict[str, Any]] = {}
    if start.is_file():
        content = tomllib.loads(start.read_text(encoding="utf-8"))
    for name, value in changes.items():
        section, _, setting = name.partition(".")
        content.setdefault(section, {})[setting] = value
    lines = [f"# {remark}", ""]
    for section, values in content.items():
        lines += [f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in values.items()), ""]
    try:
        path.write_text("\n".join(lines), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}", hint="Name another with --out"
        ) from None


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(str(name))} = {_toml(inner)}" for name, inner in value.items()) + "}"
    # JSON's escapes of a text are TOML's, but that TOML wants DEL escaped too.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")

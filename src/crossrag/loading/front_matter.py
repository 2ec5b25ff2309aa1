"""Front matter of Markdown, in YAML or TOML -> title and metadata; the text behind it.

YAML is read by a safe loader that refuses references, by which a few lines could stand for gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .metadata import Gathering, Notices

# YAML begins with a key; a rule above prose does not make the prose front matter.
_YAML = re.compile(
    r"\A---[ \t]*\n(\w[^\n:]*:[^\n]*\n(?:\w[^\n:]*:[^\n]*\n|[ \t#-][^\n]*\n|\n)*?)"
    r"(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
)
_TOML = re.compile(r"\A\+\+\+[ \t]*\n((?:[^\n]*\n)*?)\+\+\+[ \t]*(?:\n|\Z)")
_TITLE = re.compile(r"^title:([^\n]*)$", re.MULTILINE)
_LONGEST = 65_536
"""Longer front matter is none: it would take the reader of YAML seconds."""


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What stands above a text, and the text. A notice says what could not be kept, and on which line."""

    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def split_front_matter(text: str) -> FrontMatter:
    """Front matter and the text behind it; all is text where there is none."""
    head = text[: _LONGEST + 8]
    found = _YAML.match(head) or _TOML.match(head)
    if found is None:
        return FrontMatter(text)
    read = _read_yaml if head.startswith("---") else _read_toml
    metadata, notices = Gathering(), Notices()
    title = ""
    for line, key, value, wrong in read(found[1]):
        if not wrong and key == "title" and isinstance(value, str | int | float):
            title = str(value)
            continue
        if reason := wrong or metadata.add(key, value):
            notices.add(f"front matter, line {line + 1}: {reason}")
    if not title and (plain := _TITLE.search(found[1])):
        title = plain[1].strip().strip("\"'")  # what is no YAML may still have a title for its reader
    return FrontMatter(text[found.end() :], title, metadata.values, notices.told())


_Entry = tuple[int, str, Any, str]
"""Line from 1, key, value, and what is wrong with it."""


def _read_yaml(text: str) -> Iterator[_Entry]:
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                mark = self.get_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(problem="references are not allowed", problem_mark=mark)
            return super().compose_node(parent, index)

    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            yield 1, "", None, "is no list of names and values"
            return
        for key, value in node.value:
            yield key.start_mark.line + 1, str(key.value), loader.construct_object(value, deep=True), ""
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        yield line, "", None, f"is no YAML: {error.problem or error}"
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError) as error:
        # An impossible date is a ValueError; deep nesting ends in a RecursionError.
        yield 1, "", None, f"is no YAML: {str(error)[:120] or type(error).__name__}"
    finally:
        loader.dispose()


def _read_toml(text: str) -> Iterator[_Entry]:
    import tomllib

    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        line = re.search(r"at line (\d+)", str(error))
        yield int(line[1]) if line else 1, "", None, f"is no TOML: {str(error).split(' (at')[0][:120]}"
        return
    for key, value in values.items():
        before = re.search(rf"^[ \t]*\[*[\"']?{re.escape(key)}\b", text, re.MULTILINE)
        yield text.count("\n", 0, before.start()) + 1 if before else 1, key, value, ""

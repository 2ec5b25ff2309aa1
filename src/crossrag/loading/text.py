"""Plain text, source code, reStructuredText: decoded and repaired, lines kept whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .decoding import decode
from .parsed import Parsed
from .repair import clean_text

# A line of one sign, at least three long: what reStructuredText draws under, and at times over, a title.
_ADORNMENT = re.compile(r"([=\-`:.'\"~^_*+#!$%&,/;<>?@\\|(){}\[\]])\1{2,}")

LANGUAGES: Mapping[str, str] = {
    **dict.fromkeys((".py", ".pyi"), "python"),
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), "javascript"),
    **dict.fromkeys((".ts", ".tsx"), "typescript"),
    **dict.fromkeys((".c", ".h"), "c"),
    **dict.fromkeys((".cc", ".cpp", ".cxx", ".hh", ".hpp"), "c++"),
    **dict.fromkeys((".sh", ".bash", ".zsh"), "shell"),
    **dict.fromkeys((".kt", ".kts"), "kotlin"),
    **dict.fromkeys((".ex", ".exs"), "elixir"),
    **dict.fromkeys((".yaml", ".yml"), "yaml"),
    **dict.fromkeys((".ini", ".cfg", ".conf"), "ini"),
    **dict.fromkeys((".ps1", ".psm1"), "powershell"),
    ".cs": "c#",
    ".css": "css",
    ".dart": "dart",
    ".erl": "erlang",
    ".go": "go",
    ".graphql": "graphql",
    ".hs": "haskell",
    ".java": "java",
    ".jl": "julia",
    ".lua": "lua",
    ".ml": "ocaml",
    ".php": "php",
    ".pl": "perl",
    ".proto": "protobuf",
    ".r": "r",
    ".rb": "ruby",
    ".rs": "rust",
    ".scala": "scala",
    ".sql": "sql",
    ".swift": "swift",
    ".tex": "tex",
    ".tf": "terraform",
    ".toml": "toml",
    ".xml": "xml",
    ".zig": "zig",
}
"""Programming and configuration languages by suffix. They are text: nothing of them is parsed or run."""


def parse_text(data: bytes) -> Parsed:
    """Text without title or headings."""
    return Parsed(text=clean_text(decode(data)))


def parse_source(data: bytes, *, language: str) -> Parsed:
    """Source code; its language becomes metadata."""
    return Parsed(text=clean_text(decode(data)), metadata={"language": language})


def parse_restructured(data: bytes) -> Parsed:
    """reStructuredText, its section titles written as Markdown's; directives stay as text and do nothing."""
    lines = list(_with_headings(clean_text(decode(data)).split("\n")))
    first = next((line for line in lines if line.startswith("#")), "")
    return Parsed(text="\n".join(lines), title=first.lstrip("#").strip(), markdown=True)


def _with_headings(lines: list[str]) -> Iterator[str]:
    """Each title with its adornment as one line `## title`; the levels are in the order of appearance."""
    styles: list[tuple[str, bool]] = []
    at = 0
    while at < len(lines):
        title, above = _title_at(lines, at)
        if not title:
            yield lines[at]
            at += 1
            continue
        style = (lines[at + 1 + above][0], above)
        if style not in styles:
            styles.append(style)
        yield f"{'#' * min(6, styles.index(style) + 1)} {title}"
        at += 2 + above


def _title_at(lines: list[str], at: int) -> tuple[str, bool]:
    """The title that begins at a line, and whether its adornment is above it too; or nothing."""
    if at and lines[at - 1].strip():
        return "", False
    above = _ADORNMENT.fullmatch(lines[at].rstrip()) is not None
    if at + 1 + above >= len(lines):
        return "", False
    title, below = lines[at + above].rstrip(), lines[at + 1 + above].rstrip()
    if not title.strip() or _ADORNMENT.fullmatch(below) is None or len(below) < len(title.strip()):
        return "", False
    if above:
        return (title.strip(), True) if below == lines[at].rstrip() else ("", False)
    return ("", False) if title[0].isspace() else (title, False)

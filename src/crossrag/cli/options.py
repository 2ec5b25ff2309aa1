"""Options that many commands share, and how they lead to a Rag."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossrag.errors import UsageError

if TYPE_CHECKING:
    from crossrag.config import Loaded
    from crossrag.pipeline import Rag

IndexOption = Annotated[Path | None, typer.Option("--index", "-i", help="Folder of the index.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Settings file in place of crossrag.toml.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
TopKOption = Annotated[int | None, typer.Option("--top-k", "-k", min=1, help="How many passages.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE|JSON",
        help="Only chunks whose metadata says so. VALUE is text; numbers want JSON: '{\"year\": 2024}'.",
    ),
]
DeadlineOption = Annotated[
    float | None, typer.Option("--deadline", metavar="SECONDS", min=0.001, help="Time for the whole.")
]
EngineOption = Annotated[
    str, typer.Option("--engine", help="local, or ray: the same work on a Ray cluster (section \\[ray]).")
]
GlobOption = Annotated[
    list[str] | None,
    typer.Option(
        "--glob",
        metavar="PATTERN",
        help="Only files like this: '*.md'. Documents of other files go from the index, but with --no-prune.",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="No files or folders like this. Documents of them go from the index, but with --no-prune.",
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="A setting for this call.")
]


@contextmanager
def opened(index: Path | None, config: Path | None, settings: list[str] | None) -> Iterator[Rag]:
    """The index that the options and settings name, closed afterwards."""
    from crossrag.pipeline import Rag

    with Rag(loaded(index, config, settings).settings) as rag:
        yield rag


def loaded(index: Path | None, config: Path | None, settings: list[str] | None) -> Loaded:
    """The settings, with what the options say above all."""
    from crossrag.config import load_settings

    arguments: dict[str, dict[str, Any]] = {}
    for pair in settings or []:
        name, equals, value = pair.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot):
            raise UsageError(
                f"--set {pair!r} is not SECTION.KEY=VALUE", hint="Example: --set reranking.top_k=3"
            )
        arguments.setdefault(section, {})[key] = value
    if index is not None:
        arguments.setdefault("index", {})["path"] = index
    return load_settings(arguments, config_file=config)

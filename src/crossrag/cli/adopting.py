"""`crossrag adopt`: looks at a collection that something else made, and says what to set to search in it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from . import show
from .options import ConfigOption, SetOption, loaded


def register(app: typer.Typer) -> None:
    """Make this function a command of the application."""
    app.command(
        epilog="Example: crossrag adopt my-rag-index --url http://127.0.0.1:6333 "
        "--embedder langchain:openai:text-embedding-3-small > crossrag.toml"
    )(adopt)


def adopt(
    collection: Annotated[str, typer.Argument(help="Name of the collection.")],
    url: Annotated[str, typer.Option("--url", help="Address of the Qdrant server.")],
    embedder: Annotated[
        str, typer.Option("--embedder", metavar="NAME", help="What its vectors were made with.")
    ],
    vector: Annotated[
        str | None, typer.Option("--vector", help="Its dense vector, if it has several.")
    ] = None,
    sparse: Annotated[
        str | None, typer.Option("--sparse", help="Its sparse vector, if sparse.model made it.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text-key", help="Key of the text in the payload.")] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata-key", help="Key of the metadata; '' where it is the payload.")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> None:
    """Search in a Qdrant collection of LangChain's or another's as it is, without embedding it again.

    Looks at it, and prints the settings with which all other commands do. It is read, never written.
    """
    from crossrag.pipeline import Rag

    chosen = {
        "index.store": "adopted",
        "qdrant.url": url,
        "qdrant.collection": collection,
        "embedder.model": embedder,
        "adopt.vector": vector,
        "adopt.sparse": sparse,
        "adopt.text": text,
        "adopt.metadata": metadata,
    }
    given = {name: value for name, value in chosen.items() if value is not None}
    said = [f"{name}={value}" for name, value in given.items()]
    with Rag(loaded(None, config, [*(settings or []), *said]).settings) as rag:
        count = rag.store.count()
        first = next(iter(rag.store.scan(limit=1)), None)
    example = f", such as {first.chunk.text[:60]!r} of {first.chunk.source}" if first else ""
    show.talk(f"{collection} has {count} passages{example}. Put this into crossrag.toml:")
    sections: dict[str, list[str]] = {}
    for name, value in given.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, []).append(f"{key} = {json.dumps(value)}")
    print("\n\n".join("\n".join((f"[{section}]", *lines)) for section, lines in sections.items()))

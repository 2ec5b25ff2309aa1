"""Commands that keep an index: verify, repair, delete, reindex, export, import."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import show
from .options import ConfigOption, IndexOption, JsonOption, SetOption, opened

if TYPE_CHECKING:
    from crossrag.archive import Contents
    from crossrag.config import Settings
    from crossrag.verifying import Difference

_SHOWN = 20
DIFFERS = 9
"""Exit code: the index is not what its manifest says."""
_BRINGS_BACK = "the manifest knows no document: `crossrag ingest PATH` brings back those of a file or folder"


def register(app: typer.Typer) -> None:
    """Make these functions commands of the application."""
    app.command(epilog="Example: crossrag verify --vectors")(verify)
    app.command(epilog="Example: crossrag repair")(repair)
    app.command(epilog="Example: crossrag delete --source 'handbook/old-*'")(delete)
    app.command(epilog="Example: crossrag reindex --set chunking.size=1200")(reindex)
    app.command(epilog="Example: crossrag export backup.crossrag")(export)
    app.command("import", epilog="Example: crossrag import backup.crossrag --index other")(import_)


def verify(
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Read the vectors too, and print a digest of everything.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare what the index should hold with what it holds (exit code 9 where they differ)."""
    from crossrag import maintenance

    with opened(index, config, settings) as rag:
        verdict = maintenance.verify(rag.index, vectors=vectors)
    if as_json:
        show.to_json(asdict(verdict))
    else:
        _differences(verdict.differences)
        advice = _BRINGS_BACK if verdict.manifest_lost else "run `crossrag repair`"
        agreed = "agree" if verdict.agrees else f"differ: {advice}"
        print(f"{verdict.documents} documents, {verdict.chunks} chunks: manifest and store {agreed}")
        if verdict.digest:
            print(f"digest {verdict.digest}")
    if not verdict.agrees:
        raise typer.Exit(DIFFERS)


def repair(
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mend what verify finds: from the files, where chunks are missing or damaged."""
    from crossrag import maintenance

    with opened(index, config, settings) as rag, show.ingest_progress() as progress:
        done = maintenance.repair(rag.index, progress=progress)
    if as_json:
        show.to_json(asdict(done))
    else:
        _differences(done.found)
        print(f"{len(done.found)} differences found, {done.rewritten} documents written again")
        if done.removed:
            print(f"chunks of {done.removed} orphaned documents removed")
        if done.manifest_lost:
            show.talk(f"The index is empty now, as {_BRINGS_BACK}.")
        for failure in done.failed:
            show.talk(f"cannot be mended: {failure.source}: {failure.reason}")
    if done.failed:
        raise typer.Exit(DIFFERS)


def delete(
    sources: Annotated[
        list[str], typer.Option("--source", metavar="NAME", help="As `status` shows it; or a pattern.")
    ],
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove documents from the index; their files stay."""
    from crossrag import maintenance

    with opened(index, config, settings) as rag:
        gone = maintenance.delete(rag.index, sources)
    if as_json:
        show.to_json({"deleted": gone})
        return
    for source in gone:
        print(f"deleted  {source}")
    show.hint_once("Their files stay: the next ingestion of their folder brings them back, unless excluded.")


def reindex(
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Switch also if files of the old index cannot be read.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the index anew beside the old one, from the same files, and switch when it is whole."""
    from crossrag import maintenance

    with opened(index, config, settings) as rag, show.ingest_progress() as progress:
        report = maintenance.reindex(rag.index, drop_missing=drop_missing, progress=progress)
    show.report(report, as_json=as_json)
    if settings:
        show.talk("With other settings the index is refused from now on. Put this into crossrag.toml:\n")
        show.talk(_as_toml(rag.settings, settings))


def export(
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the index into one file, vectors included."""
    from crossrag import archive

    with opened(index, config, settings) as rag, show.counting("chunks") as count:
        contents = archive.export(rag.index, target, progress=count)
    _contents(contents, "exported to", target, as_json=as_json)


def import_(
    source: Annotated[Path, typer.Argument(help="A file that `crossrag export` wrote.")],
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an exported index over into an empty one, without embedding again."""
    from crossrag import archive

    with opened(index, config, settings) as rag, show.counting("chunks") as count:
        contents = archive.load(rag.index, source, progress=count)
    _contents(contents, "imported from", source, as_json=as_json)


def _as_toml(settings: Settings, pairs: list[str]) -> str:
    """What `--set` changed, as lines of a settings file."""
    lines: dict[str, dict[str, str]] = {}
    for name in (pair.partition("=")[0] for pair in pairs):
        section, _, key = name.partition(".")
        value = getattr(getattr(settings, section), key)
        if value is not None:  # which TOML has no word for, and is the default where it is allowed
            lines.setdefault(section, {})[key] = _toml_value(value)
    return "\n\n".join(
        "\n".join([f"[{section}]", *(f"{key} = {value}" for key, value in of_section.items())])
        for section, of_section in lines.items()
    )


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, (bool, int, float)):
        return str(value).lower()
    return json.dumps(str(value), ensure_ascii=False)  # secrets stay masked


def _contents(contents: Contents, verb: str, place: Path, *, as_json: bool) -> None:
    if as_json:
        show.to_json(asdict(contents) | {"archive": str(place)})
        return
    print(f"{contents.documents} documents, {contents.chunks} chunks {verb} {place}")


def _differences(found: tuple[Difference, ...]) -> None:
    """The first of each kind: a run that was cut short leaves thousands that say the same."""
    by_kind: dict[str, list[Difference]] = {}
    for one in found:
        by_kind.setdefault(one.kind, []).append(one)
    for kind, alike in by_kind.items():
        for one in alike[:_SHOWN]:
            print(f"{kind:<10} {one.source}: {one.text}")
        if len(alike) > _SHOWN:
            print(f"{kind:<10} and {len(alike) - _SHOWN} more; --json lists them all")

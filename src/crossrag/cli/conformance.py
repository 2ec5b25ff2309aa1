"""`crossrag conformance`: whether a reranker or a retriever keeps what everybody builds on."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import show
from .options import ConfigOption, JsonOption, SetOption, loaded

if TYPE_CHECKING:
    from crossrag.testing.conformance import Report


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: crossrag conformance onnx:./model; docs/conformance.md")(conformance)


def conformance(
    target: Annotated[
        str,
        typer.Argument(
            help="`progressive`, `rag`, a reranker such as onnx:DIR, or your own package.module:factory."
        ),
    ],
    config: ConfigOption = None,
    settings: SetOption = None,
    checks: Annotated[
        list[str] | None, typer.Option("--check", metavar="NAME", help="Only these checks.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a reranker or a retriever; exit code 1 where something does not hold."""
    from crossrag.evaluation.targets import target as found
    from crossrag.testing.conformance import run

    # The factory is the user's own, from where they are.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    report = run(found(target, loaded(None, config, settings).settings), checks or None)
    if as_json:
        show.to_json({"target": target, "ok": report.ok, "results": [asdict(one) for one in report.results]})
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    width = max(len(one.name) for one in report.results)
    for one in report.results:
        mark = {"pass": "ok", "fail": "FAIL", "not applicable": "-"}[one.status]
        print(f"{mark:<5} {one.name:<{width}}  {one.evidence or one.what}")
        if one.status == "fail":
            print(f"{'':<6}{'':<{width}}  asked: {one.what}\n{'':<6}{'':<{width}}  why: {one.why}")
    counts = [sum(one.status == status for one in report.results) for status in ("pass", "fail")]
    show.talk(f"{counts[0]} hold, {counts[1]} do not, {len(report.results) - sum(counts)} do not apply.")

"""Commands of `crossrag`. Each one parses, calls and prints; what it calls is the library's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossrag.errors import CrossragError, UsageError

from . import adopting, conformance, evaluate, ingestion, narrowing, serving, show, upkeep
from . import doctor as checks
from .options import (
    ConfigOption,
    DeadlineOption,
    EngineOption,
    ExcludeOption,
    GlobOption,
    IndexOption,
    JsonOption,
    SetOption,
    TopKOption,
    WhereOption,
    loaded,
    opened,
)

if TYPE_CHECKING:
    from crossrag.types import Answer

app = typer.Typer(
    name="crossrag",
    help="Answers from your own documents: wide search, a cross-encoder that reads, checked citations.",
    epilog="Exit codes: 0 ok, 1 unexpected, 2 usage, 3 index, 4 model, 5 language model, "
    "6 some files failed, 7 settings, 8 model or calibration refused, 9 index differs, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Look at the settings.", no_args_is_help=True)
upkeep.register(app)
evaluate.register(app)
conformance.register(app)
serving.register(app)
adopting.register(app)
app.add_typer(config_app, name="config")


INTERRUPTED = 130


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options before the command."""
    show.state.debug = debug
    if version:
        from crossrag import __version__

        print(__version__)
        raise typer.Exit


@app.command(epilog="Example: crossrag ingest docs/ && crossrag ask 'How do I restore a backup?'")
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Throw the whole index away first.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    globs: GlobOption = None,
    exclude: ExcludeOption = None,
    gitignore: Annotated[
        bool, typer.Option("--gitignore/--no-gitignore", help="Leave out what .gitignore files do.")
    ] = True,
    prune: Annotated[
        bool, typer.Option("--prune/--no-prune", help="Remove documents whose files are gone or not chosen.")
    ] = True,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Read all files, also those that look unchanged.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first file that cannot be read.")
    ] = False,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Files that cannot be read are told, and are no failure.")
    ] = False,
    engine: EngineOption = "local",
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on whenever files change, until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the index equal to the files: new, changed, renamed and deleted ones."""
    from crossrag.planning import Selection

    selection = Selection(
        globs=tuple(globs or ()),
        exclude=tuple(exclude or ()),
        gitignore=gitignore,
        prune=prune,
        checksum=checksum,
    )
    if dry_run and watch:
        raise UsageError("--dry-run and --watch do not go together", hint="Leave out one of them")
    with opened(index, config, settings) as rag:
        if dry_run:
            plan = rag.plan(*paths, selection=selection, rebuild=rebuild)
            ingestion.show_plan(plan, as_json=as_json)
            return
        prepares = ingestion.chosen(rag.settings, engine)
        signals = ingestion.listening(rag, paths) if watch else None
        report = ingestion.once(rag, paths, selection, prepares, rebuild=rebuild, fail_fast=fail_fast)
        show.report(report, as_json=as_json)
        if signals is not None:
            ingestion.watch(rag, paths, selection, signals, engine=prepares, as_json=as_json)
    if report.failed and not allow_failed:
        raise typer.Exit(6)


@app.command(epilog="Example: crossrag search 'restore a backup' --explain")
def search(
    query: Annotated[str, typer.Argument(help="A question or a few words.")],
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    top_k: TopKOption = None,
    where: WhereOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="What each stage said of each passage.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find the most relevant passages."""
    with opened(index, config, settings) as rag:
        ranking = rag.search(query, top_k=top_k, where=narrowing.read(where))
    show.ranking(ranking, explain=explain, as_json=as_json)
    if not ranking.candidates:
        narrowing.suggest(where)


@app.command(epilog="Example: crossrag ask 'How do I restore a backup?' --show-context")
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    where: WhereOption = None,
    show_context: Annotated[bool, typer.Option("--show-context", help="Print the passages used.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print the whole path to the answer.")] = False,
    deadline: DeadlineOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from the documents, with citations, or say that they do not contain it."""
    with opened(index, config, settings) as rag:
        if as_json:
            answer: Answer | None
            answer = whole = rag.ask(question, where=narrowing.read(where), deadline=deadline)
            show.answer_json(whole)
        else:
            events = rag.stream(question, where=narrowing.read(where), deadline=deadline)
            answer = show.answer_stream(events, context=show_context, explaining=rag if explain else None)
        if answer is not None and not answer.ranking.candidates:
            narrowing.suggest(where)
        elif not as_json and rag.settings.generator.model == "extractive":
            show.hint_once(
                "Quoted from the documents. For answers in prose: --set generator.model=openai:MODEL"
            )


@app.command(epilog="Example: crossrag chat, then: How do I restore a backup?")
def chat(
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    where: WhereOption = None,
    deadline: DeadlineOption = None,
) -> None:
    """Ask one question after another; follow-ups are understood by what was asked before."""
    from .chat import talk_over

    with opened(index, config, settings) as rag:
        talk_over(rag, where=narrowing.read(where), deadline=deadline)


@app.command(
    epilog="Example: crossrag calibrate judged.jsonl, then --set reranking.threshold='precision>=0.9'"
)
def calibrate(
    judgements: Annotated[
        Path | None,
        typer.Argument(help='JSON Lines: {"question": …, "source": …, "quote": …}, one relevant place each.'),
    ] = None,
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete the calibration that lies beside the index.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit relevance to 10 judged questions or more, say what thresholds are worth; worse is refused (8)."""
    from . import learn

    with opened(index, config, settings) as rag:
        code = learn.calibrate(rag, judgements, remove=remove, as_json=as_json)
    if code:
        raise typer.Exit(code)


@app.command(epilog="Example: crossrag train --judgements judged.jsonl --out models/ours")
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the new model.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with corpus.jsonl, queries.jsonl and qrels/ (BEIR).")
    ] = None,
    judgements: Annotated[
        Path | None, typer.Option("--judgements", help="Judged questions about the index, as for calibrate.")
    ] = None,
    general: Annotated[
        Path | None,
        typer.Option("--general", help="BEIR folder it must not lose on; else the bundled guide."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="Model to go on from; else the bundled.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Batches to learn from; else by the data.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Same seed and data, same model.")] = 0,
    by_prefix: Annotated[
        bool, typer.Option("--by-prefix", help="Ids are set:id; sets are kept apart.")
    ] = False,
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the reranker on judged questions; a model that is not better is refused (exit code 8)."""
    from . import learn

    with opened(index, config, settings) as rag:
        code = learn.train(
            rag,
            data=data,
            judgements=judgements,
            general=general,
            start=start,
            out=out,
            steps=steps,
            seed=seed,
            by_prefix=by_prefix,
            as_json=as_json,
        )
    if code:
        raise typer.Exit(code)


@app.command()
def status(index: IndexOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """What is in the index."""
    with opened(index, config, None) as rag:
        show.status(checks.status(rag), as_json=as_json)


@app.command()
def doctor(index: IndexOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check settings, models and index, and say how to mend what is wrong."""
    findings = list(checks.examine(lambda: loaded(index, config, None)))
    show.findings(findings, as_json=as_json)
    if worst := max((finding.exit_code for finding in findings), default=0):
        raise typer.Exit(worst)


@app.command()
def demo(
    index: Annotated[
        Path | None, typer.Option("--index", help="Keep the index here; else it is temporary.")
    ] = None,
) -> None:
    """Index the bundled user guide and ask it three questions, one of which it cannot answer."""
    from .demo import run

    run(index)


@config_app.command("show")
def config_show(
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every setting, its value and where it came from; secrets are masked."""
    show.settings(list(loaded(index, config, settings).rows()), as_json=as_json)


def main() -> None:
    """Entry point: every error that crossrag raises on purpose becomes one message and its exit code."""
    show.use_utf8()
    try:
        # Outside standalone mode the code of `typer.Exit` comes back as the result.
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:  # which typer makes of Ctrl-C, without a word
            raise KeyboardInterrupt
        sys.exit(code)
    except CrossragError as error:
        _fail(error, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        show.talk("Interrupted. The index is whole; ingesting again goes on from there.")
        sys.exit(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last frame before the shell
        if hasattr(error, "format_message"):
            _fail_usage(error)
        _fail(error, 1)


def _fail(error: Exception, code: int) -> None:
    if show.state.debug:
        import traceback

        traceback.print_exception(error)
    show.error(str(error) or type(error).__name__, unexpected=code == 1)
    sys.exit(code)


def _fail_usage(error: Any) -> None:
    """Click's and typer's own errors: unknown command or option, missing argument."""
    text = str(error.format_message())
    if not text:
        # No arguments: the help was printed, and says it all.
        sys.exit(2)
    context = getattr(error, "ctx", None)
    where = f" See `{context.command_path} --help`." if context else ""
    show.error(text.rstrip(".") + "." + where)
    sys.exit(int(getattr(error, "exit_code", 2)))

"""`crossrag eval` with its parts, and `crossrag tune`: what a user's own questions say of the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from crossrag.errors import MissingExtraError, UsageError

from . import show
from .options import ConfigOption, IndexOption, JsonOption, SetOption, loaded, opened

if TYPE_CHECKING:
    from crossrag.config import Loaded
    from crossrag.evaluation.comparison import Comparison
    from crossrag.evaluation.judging import Judge
    from crossrag.pipeline import Rag

REGRESSED = 1
"""Exit code of a gate that does not let a run pass."""
_CACHE = "evaluation.sqlite"


class _DataFirst(TyperGroup):
    """`eval DATA` is `eval run DATA`: what is no command of the group is data."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first and first not in self.commands and first not in {"-h", "--help"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


eval_app = typer.Typer(
    cls=_DataFirst,
    help="Measure on judged questions: `eval DATA`, or one of these. DATA is a file of questions (JSON "
    "Lines, CSV), a BEIR folder, or a folder with queries and TREC's qrels.",
    no_args_is_help=True,
)

DataArgument = Annotated[Path, typer.Argument(help="Questions: a file, or a folder.", show_default=False)]
QuestionsOption = Annotated[
    int | None, typer.Option("--questions", "-n", min=1, help="At most so many, always the same ones.")
]
RelevantOption = Annotated[
    int, typer.Option("--relevant-from", help="Least grade that is relevant, for measures of yes and no.")
]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", help="Remember searches here; else beside the index.")
]
StageOption = Annotated[
    str | None,
    typer.Option(
        "--stage", help="BM25, dense, fused, reranked or kept; else the last order before the threshold."
    ),
]


def register(app: typer.Typer) -> None:
    """Make these functions commands of the application."""
    app.add_typer(eval_app, name="eval")
    app.command(epilog="Example: crossrag tune questions.jsonl --minutes 10")(tune)


@eval_app.command(epilog="Example: crossrag eval questions.jsonl --answers --out report/")
def run(
    data: DataArgument,
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for report.json, report.md, figures, TREC runs."),
    ] = None,
    questions: QuestionsOption = None,
    measures: Annotated[
        list[str] | None, typer.Option("--measure", "-m", help="As ir-measures names them, such as nDCG@5.")
    ] = None,
    relevant_from: RelevantOption = 1,
    answers: Annotated[
        bool, typer.Option("--answers", help="Ask the questions too, and judge the answers.")
    ] = False,
    ragas: Annotated[
        str | None,
        typer.Option("--ragas", metavar="MODEL", help="Also judge by RAGAS with this model; needs openai.*."),
    ] = None,
    ragas_measures: Annotated[
        list[str] | None, typer.Option("--ragas-measure", help="Such as faithfulness; else all that apply.")
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every stage on judged questions, and say whether reranking helps."""
    from crossrag.evaluation import markdown, report, running
    from crossrag.evaluation.measures import DEFAULT
    from crossrag.evaluation.reading import read_dataset

    _check_extra()
    dataset = running.sampled(read_dataset(data, relevant_from=relevant_from), questions)
    given = loaded(index, config, settings).settings
    if out is not None:
        running.make_folder(out)
    with (
        _journal(cache or given.index.path / _CACHE) as journal,
        _progress() as progress,
        running.opened(data, given, progress=progress) as subject,
    ):
        judges = _judges(subject.rag, ragas, ragas_measures) if answers or ragas else ()
        wanted = running.Wanted(
            measures=tuple(measures or DEFAULT), answers=bool(answers or ragas), judges=judges
        )
        content, records = running.evaluate(
            dataset, subject, journal=journal, wanted=wanted, progress=progress
        )
    if out is not None:
        running.save(content, records, dataset, out)
    if as_json:
        print(report.as_json(content), end="")
        return
    show.columns(markdown.table(content))
    for line in _summary(content):
        print(line)
    _tell_what_judges_spent(judges)
    show.talk(f"Report: {out / 'report.md'}" if out else "With --out FOLDER: the whole report, figures.")


def _tell_what_judges_spent(judges: Iterable[object]) -> None:
    for judge in judges:
        if spent := getattr(judge, "spent", None):
            show.talk(
                f"The judge was asked {spent.requests} times: {spent.prompt_tokens} tokens read, "
                f"{spent.completion_tokens} written."
            )


@eval_app.command(epilog="Example: crossrag eval compare before/report.json after/report.json")
def compare(
    a: Annotated[Path, typer.Argument(help="report.json, or a TREC run.")],
    b: Annotated[Path, typer.Argument(help="The other one.")],
    qrels: Annotated[
        Path | None, typer.Option("--qrels", help="Judgements, if A and B are TREC runs.")
    ] = None,
    stage: StageOption = None,
    relevant_from: RelevantOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Say which of two is better, with what certainty, and where."""
    from crossrag.evaluation import comparison

    if qrels is None:
        found = comparison.compare_reports(a, b, stage=stage)
    else:
        found = comparison.compare_runs(a, b, qrels, relevant_from=relevant_from)
    if as_json:
        show.to_json(asdict(found) | {"verdict": found.verdict})
        return
    _show_comparison(found)


@eval_app.command(epilog="Example: crossrag eval gate report.json --baseline baseline.json")
def gate(
    report: Annotated[Path, typer.Argument(help="report.json of the run that is to pass.")],
    baseline: Annotated[Path, typer.Option("--baseline", help="report.json that it must keep up with.")],
    max_drop: Annotated[float, typer.Option("--max-drop", min=0.0, help="How much worse it may be.")] = 0.005,
    measure: Annotated[str, typer.Option("--measure", "-m", help="By what.")] = "nDCG@10",
    stage: StageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Exit with 1 where a run is worse than its baseline; refuse (2) what cannot be compared."""
    from crossrag.evaluation import comparison

    found = comparison.gate(report, baseline, max_drop=max_drop, measure=measure, stage=stage)
    if as_json:
        show.to_json(asdict(found) | {"drop": found.drop})
    else:
        said = "passed" if found.passed else "FAILED"
        print(
            f"{said}: {found.measure} of {found.stage} {found.baseline:.4f} -> {found.value:.4f} "
            f"(may fall by {found.max_drop:g}; p = {found.difference.p:.3f})"
        )
    for notice in found.notices:
        show.talk(notice)
    if not found.passed:
        raise typer.Exit(REGRESSED)


@eval_app.command(epilog="Example: crossrag eval init questions.jsonl")
def init(
    out: Annotated[Path, typer.Argument(help="File of questions to write, or to go on with.")],
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Passages to ask about.")] = 30,
    by_hand: Annotated[
        bool,
        typer.Option("--by-hand", help="Show passages, take questions, judge results, in this terminal."),
    ] = False,
) -> None:
    """Make a starter set of judged questions from the index."""
    from . import starting

    with opened(index, config, settings) as rag:
        starting.begin(rag, out, count=count, by_hand=by_hand)


def tune(
    data: DataArgument,
    index: IndexOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, help="Start nothing new after these.")
    ] = 10.0,
    chunking: Annotated[
        bool,
        typer.Option("--chunking", help="Try chunk sizes too: the documents are indexed anew, elsewhere."),
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Settings file to write.")] = Path("tuned.toml"),
    questions: QuestionsOption = None,
    relevant_from: RelevantOption = 1,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for better settings on one half of the questions, report on the other, write them."""
    from crossrag.config import PROJECT_FILE
    from crossrag.evaluation import running, tuning
    from crossrag.evaluation.changes import write_settings
    from crossrag.evaluation.reading import read_dataset

    _check_extra()
    dataset = running.sampled(read_dataset(data, relevant_from=relevant_from), questions)
    given = loaded(index, config, settings)
    with _journal(cache or given.settings.index.path / _CACHE) as journal, _progress() as progress:
        found = tuning.tune(
            dataset,
            data,
            given.settings,
            journal=journal,
            options=tuning.Options(seconds=minutes * 60, chunking=chunking),
            progress=progress,
        )
    write_settings(
        {**_said(given), **found.changes},
        out,
        start=config or Path(PROJECT_FILE),
        remark=found.verdict,
    )
    if as_json:
        show.to_json(asdict(found) | {"verdict": found.verdict})
        return
    for line in tuning.told(found):
        print(line)
    show.talk(f"Use it with --config {out}")


def _said(given: Loaded) -> dict[str, Any]:
    """What was set for this call and was measured with, but for where the index is, and secrets."""
    from pydantic import SecretStr

    values = given.settings.model_dump(mode="json")
    said = {}
    for name, origin in given.origins.items():
        section, _, key = name.partition(".")
        secret = isinstance(getattr(getattr(given.settings, section), key), SecretStr)
        if origin == "argument" and section != "index" and not secret and values[section][key] is not None:
            said[name] = values[section][key]
    return said


def _check_extra() -> None:
    for module, package in (("ir_measures", "ir-measures"), ("matplotlib", "matplotlib")):
        if find_spec(module) is None:
            raise MissingExtraError(
                f"Evaluation needs the package {package}", hint="pip install 'crossrag[eval]'"
            )


def _judges(rag: Rag, ragas: str | None, measures: list[str] | None) -> tuple[Judge, ...]:
    from crossrag.evaluation.local import LocalJudge

    if rag.grounder is None:
        show.talk(
            "verification.model is none: faithfulness and what else needs a grounding model is left out."
        )
    local: tuple[Judge, ...] = (LocalJudge(grounder=rag.grounder, reranker=rag.reranker),)
    if ragas is None:
        if measures:
            raise UsageError("--ragas-measure without --ragas", hint="Name the model: --ragas gpt-4o-mini")
        return local
    from crossrag.evaluation.by_ragas import RagasJudge

    key = rag.settings.openai.api_key
    judge = RagasJudge(
        ragas,
        measures=tuple(measures or ()),
        base_url=rag.settings.openai.base_url,
        api_key=key.get_secret_value() if key else None,
        embedder=rag.embedder,
    )
    return (*local, judge)


@contextmanager
def _journal(path: Path) -> Iterator[Any]:
    from crossrag.evaluation.journal import Journal

    with Journal(path) as journal:
        yield journal


@contextmanager
def _progress() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """One bar at a time, with the time that is left, on a terminal; nothing elsewhere."""
    with ExitStack() as bars:

        def begin(what: str) -> Callable[[int, int], None]:
            bars.close()
            count = bars.enter_context(show.counting(what))
            return lambda done, total: count(done, total, what)

        yield begin


def _summary(content: dict[str, Any]) -> Iterator[str]:
    from crossrag.evaluation import markdown

    yield ""
    yield content["verdict"]
    if took := content["times"]["milliseconds"]:
        yield "Milliseconds, median: " + ", ".join(f"{k} {v['median']:.0f}" for k, v in took.items()) + "."
    if said := markdown.cost(content):
        yield said
    if content["harmed"]:
        count = len(content["harmed"])
        yield f"{count} relevant passages left the first ten by reranking; the report says why."
    if found := content["abstention"]:
        point = found["at_threshold"]
        yield (
            f"At the threshold {point['threshold']:g}: {point['coverage']:.0%} answered, "
            f"the first passage wrong for {point['risk']:.0%} of them."
        )
    if answers := content["answers"]:
        yield ""
        yield (
            f"{answers['asked']} asked: {answers['answered']} answered, {answers['partial']} in part, "
            f"{answers['no_answer']} refused, {answers['failed']} failed."
        )
        for name, value in answers["measures"].items():
            shown = "     -" if value["mean"] is None else f"{value['mean']:6.3f}"
            broken = f", {value['undefined']} could not be judged" if value["undefined"] else ""
            yield f"{name:<20}{shown}  over {value['count']}{broken}"
    if content["degraded"]:
        yield "Not everything worked: " + ", ".join(f"{k} {v}" for k, v in content["degraded"].items())


def _show_comparison(found: Comparison) -> None:
    rows = [["measure", "A", "B", "B - A", "p", "better", "same", "worse"]]
    for name, gain in found.differences.items():
        a, b = found.means[name]
        d = gain.difference
        counts = (gain.wins, gain.ties, gain.losses)
        rows.append(
            [
                name,
                f"{a:.3f}",
                f"{b:.3f}",
                f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]",
                f"{gain.p:.3f}",
                *map(str, counts),
            ]
        )
    print(f"A {found.a}\nB {found.b}\n{found.stage}, {found.questions} questions\n")
    show.columns(rows)
    print(f"\n{found.verdict}")
    for title, changed in (("B loses most on", found.lost), ("B gains most on", found.won)):
        if changed:
            print(f"\n{title}")
            for row in changed:
                print(f"  {row.a:.3f} -> {row.b:.3f}  {row.id}  {' '.join(row.question.split())[:90]}")
    for notice in found.notices:
        show.talk(notice)

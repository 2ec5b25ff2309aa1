"""A report -> Markdown for people, and the table of a terminal. Knows nothing of how it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .measures import MAIN

_EXCERPT = 160


def table(report: Mapping[str, Any], measures: Sequence[str] = ()) -> list[list[str]]:
    """Stages with their measures, a header first; the main measure with its 95 % interval."""
    names = list(measures or next(iter(report["stages"].values())))
    rows = [["stage", *names]]
    for stage, values in report["stages"].items():
        cells = [f"{values[name]['mean']:.3f}" for name in names]
        if MAIN in names:
            low, high = values[MAIN]["low"], values[MAIN]["high"]
            cells[names.index(MAIN)] += f" [{low:.3f}, {high:.3f}]"
        rows.append([stage, *cells])
    return rows


def markdown(report: Mapping[str, Any], figures: Mapping[str, str] | None = None) -> str:
    """The whole report.

    Args:
        report: As made by `report.report`.
        figures: Name of a figure -> its file, as a link.
    """
    return "\n".join(_lines(report, figures or {})) + "\n"


def as_table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as a table of Markdown, the first as its head."""
    for number, row in enumerate(rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        if number == 0:
            yield "|" + "---|" * len(row)


def _lines(report: Mapping[str, Any], figures: Mapping[str, str]) -> Iterator[str]:
    data, times = report["dataset"], report["times"]
    yield f"# {data['name']}"
    yield ""
    yield report["verdict"]
    yield ""
    yield (
        f"{data['questions']} questions, {data['measured']} of them with a relevant place; measured on "
        f"{times['written'][:10]}, {times['machine']}. A question without results counts as 0; brackets are "
        "95 % bootstrap intervals."
    )
    yield ""
    yield from as_table(table(report))
    yield ""
    yield from _degraded(report)
    yield from _picture("stages", figures, "Each stage's nDCG@10 with its interval")
    yield from _gain(report)
    yield from _sweep(report, figures)
    yield from _cost(report)
    yield from _trust(report, figures)
    yield from _abstention(report, figures)
    yield from _answers(report)
    yield from _harm(report)
    yield from _worst(report)
    yield from _footer(report)


def _degraded(report: Mapping[str, Any]) -> Iterator[str]:
    if report["degraded"]:
        counts = ", ".join(f"{stage}: {count}" for stage, count in report["degraded"].items())
        yield f"**Not everything worked** (questions for which a stage failed): {counts}."
        yield ""


def _picture(name: str, figures: Mapping[str, str], what: str) -> Iterator[str]:
    if name in figures:
        yield f"![{what}]({figures[name]})"
        yield ""


def _gain(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["gain"]:
        return
    yield "## What reranking changes"
    yield ""
    rows = [["measure", "reranked - fused", "p", "better on", "same on", "worse on"]]
    for name, gain in report["gain"].items():
        d = gain["difference"]
        rows.append(
            [
                name,
                f"{d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]",
                f"{gain['p']:.3f}",
                *(str(gain[key]) for key in ("wins", "ties", "losses")),
            ]
        )
    yield from as_table(rows)
    yield ""


def _sweep(report: Mapping[str, Any], figures: Mapping[str, str]) -> Iterator[str]:
    if not report["sweep"]:
        return
    yield "## How many candidates to read"
    yield ""
    took = report["times"]["sweep_milliseconds"]
    rows = [["candidates reranked", MAIN, "ms, median"]]
    rows += [
        [str(row["depth"]), f"{row['value']:.3f}", str(took.get(str(row["depth"]), ""))]
        for row in report["sweep"]
    ]
    yield from as_table(rows)
    yield ""
    yield from _picture("sweep", figures, "nDCG@10 against candidates reranked and against milliseconds")
    yield from _picture("differences", figures, "Difference per question, worst to best")


def cost(report: Mapping[str, Any]) -> str:
    """What a question costs beside time, in one sentence."""
    spent = report.get("cost") or {}  # reports of old have none
    said = []
    if spent.get("candidates") is not None:
        said.append(f"{spent['candidates']:.0f} candidates, {spent['read']:.0f} of them read by the reranker")
    if spent.get("context_tokens") is not None:
        said.append(
            f"{spent['context_tokens']:.0f} tokens of sources and {spent['answer_tokens']:.0f} of answer"
        )
    return f"A question on average: {'; '.join(said)}." if said else ""


def _cost(report: Mapping[str, Any]) -> Iterator[str]:
    took = report["times"]["milliseconds"]
    if not took and not cost(report):
        return
    yield "## What a question costs"
    yield ""
    yield from as_table(
        [
            ["stage", "ms, median", "ms, 95 %"],
            *([stage, f"{value['median']:.0f}", f"{value['p95']:.0f}"] for stage, value in took.items()),
        ]
    )
    yield ""
    if said := cost(report):
        yield said
        yield ""


def _trust(report: Mapping[str, Any], figures: Mapping[str, str]) -> Iterator[str]:
    if trust := report["trust"]:
        yield "## How far relevance can be believed"
        yield ""
        yield (
            f"Over the ten best passages of each question, {trust['pairs']} in all, {trust['relevant']} of "
            f"them relevant: expected calibration error {trust['error']:.3f}. What nobody judged counts as "
            "irrelevant."
        )
        yield ""
        yield from _picture("reliability", figures, "Relevance said against share that was relevant")


def _abstention(report: Mapping[str, Any], figures: Mapping[str, str]) -> Iterator[str]:
    if not (found := report["abstention"]):
        return
    point = found["at_threshold"]
    yield "## Answering only when sure"
    yield ""
    yield (
        f"At the threshold {point['threshold']:g}, {point['coverage']:.0%} of {found['questions']} questions "
        f"are answered, and the first passage is wrong for {point['risk']:.0%} of those. Area under risk and "
        f"coverage {found['area']:.3f} (smaller is better)."
    )
    if found["refused_unanswerable"] is not None:
        yield (
            f"Of {found['unanswerable']} questions without an answer in the documents, "
            f"{found['refused_unanswerable']:.0%} are refused."
        )
    yield ""
    yield from _picture("coverage", figures, "Share of wrong first passages against share answered")


def _answers(report: Mapping[str, Any]) -> Iterator[str]:
    if not (answers := report["answers"]):
        return
    yield "## Answers"
    yield ""
    yield (
        f"{answers['asked']} questions asked: {answers['answered']} answered, {answers['partial']} in part, "
        f"{answers['no_answer']} refused, {answers['failed']} failed. Judges: {answers['judges']}."
    )
    yield ""
    rows = [["measure", "mean", "over", "could not be judged"]]
    for name, value in answers["measures"].items():
        shown = (
            "-" if value["mean"] is None else f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
        )
        rows.append([name, shown, str(value["count"]), str(value["undefined"])])
    yield from as_table(rows)
    yield ""


def _harm(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["harmed"]:
        return
    yield "## Relevant passages that reranking moved out of the first ten"
    yield ""
    rows = [["question", "passage", "rank", "relevance", "why"]]
    for harm in report["harmed"]:
        relevance = "-" if harm["relevance"] is None else f"{harm['relevance']:.3f}"
        rank = f"{harm['before']} -> {harm['after']}"
        rows.append([harm["question"], harm["where"], rank, relevance, "; ".join(harm["reasons"])])
    yield from as_table(rows)
    yield ""


def _worst(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["worst"]:
        return
    yield f"## The {len(report['worst'])} questions that lose most by reranking"
    yield ""
    for row in report["worst"]:
        yield f"### {_flat(row['question'])}"
        yield ""
        yield f"`{row['id']}`: {MAIN} {row['before']:.3f} -> {row['after']:.3f}"
        yield ""
        for title, key in (("After fusion", "fused"), ("After reranking", "reranked")):
            yield f"{title}:"
            yield ""
            for place, seen in enumerate(row[key], start=1):
                yield f"{place}. {_passage(seen)}"
            yield ""


def _passage(seen: Mapping[str, Any]) -> str:
    said = "not judged" if seen["grade"] is None else "relevant" if seen["grade"] > 0 else "irrelevant"
    relevance = "" if seen["relevance"] is None else f", relevance {seen['relevance']:.3f}"
    cut = ", cut" if seen["truncated"] else ""
    return f"**{said}**{relevance}{cut}, {_flat(seen['where'])}: {_flat(seen['text'])[:_EXCERPT]}"


def _footer(report: Mapping[str, Any]) -> Iterator[str]:
    yield "## What was measured"
    yield ""
    subject = report["subject"]
    questions = report["dataset"]["fingerprint"]
    yield f"Corpus `{subject['corpus'][:16]}`, questions `{questions[:16]}`, chunking {subject['chunking']}."
    for name, model in subject["models"].items():
        if model:
            yield f"{name.capitalize()}: `{model}`."
    changed = ", ".join(f"{name} = {value}" for name, value in subject["settings"].items())
    yield f"Settings: {changed}."


def _flat(text: str) -> str:
    """On one line, and as text: what a document holds is no Markdown of ours."""
    flat = " ".join(text.split())
    return "".join("\\" + letter if letter in "\\`*_[]<>#|" else letter for letter in flat)

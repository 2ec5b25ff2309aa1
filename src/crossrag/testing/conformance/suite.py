"""The checks by name, with what each asks and which published fault it guards against; a run of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from crossrag.errors import UsageError, did_you_mean

from . import ranking, searching
from .material import CORPUS
from .verdicts import Status, Verdict, failed, not_applicable

if TYPE_CHECKING:
    from .target import Target


@dataclass(frozen=True, slots=True)
class Check:
    """One question to a reranker or a retriever."""

    name: str
    part: Literal["rerank", "retrieve"]
    run: Callable[[Any], Verdict]
    """Takes a target with `rank`, or a filled index."""
    why: str
    """What goes wrong otherwise, with a published case where there is one."""

    @property
    def what(self) -> str:
        """What it asks, in a sentence."""
        return (self.run.__doc__ or "").strip()


CHECKS = (
    Check(
        "answer-first",
        "rerank",
        ranking.the_answer_comes_first,
        "The other checks are about a reranker that works; a model of another task ranks by something else.",
    ),
    Check(
        "scores-given",
        "rerank",
        ranking.scores_are_given,
        "Without a score there is no threshold and no saying that nothing is relevant "
        "(asked for in langchain-cohere #137, langchain-community #65).",
    ),
    Check(
        "order-by-score",
        "rerank",
        ranking.the_order_is_that_of_the_scores,
        "A threshold cuts a list that is not sorted by the same number in the wrong places (dify #35233).",
    ),
    Check(
        "index-mapping",
        "rerank",
        ranking.positions_belong_to_their_texts,
        "Scores on the wrong texts look like a bad model (llama_index #20597).",
    ),
    Check(
        "permutation",
        "rerank",
        ranking.permutation_changes_nothing,
        "A result that depends on the order of the input depends on the first stage twice.",
    ),
    Check(
        "ties",
        "rerank",
        ranking.equal_texts_keep_their_order,
        "The same call must give the same answer; noise of batches shuffles equal texts.",
    ),
    Check(
        "truncation",
        "rerank",
        ranking.truncation_is_reported,
        "What was not read is taken for irrelevant (FlashRank PR 34, MiniSearch PR 2260).",
    ),
    Check(
        "empty",
        "rerank",
        ranking.nothing_gives_nothing,
        "A search that finds nothing is no error (open-webui #18096).",
    ),
    Check(
        "one-document",
        "rerank",
        ranking.one_text_is_ranked,
        "Arrays of one element lose an axis and become numbers.",
    ),
    Check(
        "top-k",
        "rerank",
        ranking.top_k_counts,
        "A limit larger than the list is common, and must not fail; a smaller one must not change the best.",
    ),
    Check(
        "finite-scores",
        "rerank",
        ranking.scores_are_finite,
        "NaN sorts anywhere and is no JSON (sentence-transformers #3894: half precision).",
    ),
    Check(
        "company",
        "rerank",
        ranking.a_score_does_not_depend_on_its_company,
        "A threshold on a score that is relative to the batch means nothing "
        "(mem0 PR 5715: a lone relevant document had 0.0; langchain4j-examples #62).",
    ),
    Check(
        "no-saturation",
        "rerank",
        ranking.unlike_texts_have_unlike_scores,
        "Where everything is 1.0 the best is any of them (infinity #203, haiku.rag PR 529).",
    ),
    Check(
        "long-question",
        "rerank",
        ranking.a_long_question_leaves_the_texts_readable,
        "A question that fills the window leaves no text to judge "
        "(sentence-transformers PR 3787: what stood behind it was cut off).",
    ),
    Check(
        "duplicates",
        "rerank",
        ranking.duplicates_are_kept,
        "Whether equal passages count once is for the caller to say: they have sources of their own.",
    ),
    Check(
        "input-kept",
        "rerank",
        ranking.what_is_given_is_not_changed,
        "Documents are shared with caches and other branches; their first score would be gone.",
    ),
    Check(
        "subject-found",
        "retrieve",
        searching.the_subject_is_found,
        "The other checks are about a retriever that works.",
    ),
    Check(
        "asked-k-gets-k",
        "retrieve",
        searching.as_many_as_asked,
        "Fusion and collapsing eat results where too few are fetched.",
    ),
    Check(
        "over-fetch",
        "retrieve",
        searching.fewer_are_the_beginning_of_more,
        "A hybrid search that fetches only k of each leg loses what is good in both and best in neither "
        "(langchain-qdrant 1.1).",
    ),
    Check(
        "filter-enforced",
        "retrieve",
        searching.a_filter_is_enforced,
        "What a filter keeps away must not come back by another leg (ragflow #14659, #15959).",
    ),
    Check(
        "filter-first",
        "retrieve",
        searching.a_filter_does_not_starve,
        "A filter over the results in place of the search returns too few, or nothing.",
    ),
    Check(
        "mmr-lambda-1",
        "retrieve",
        searching.mmr_of_one_is_relevance,
        "MMR must not bring an order of its own (khora #1463: it threw the reranker's away).",
    ),
    Check(
        "mmr-sign",
        "retrieve",
        searching.mmr_of_zero_is_diverse,
        "Lambda and Qdrant's `diversity` are opposites (langchain #39052).",
    ),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found."""

    name: str
    part: str
    status: Status
    evidence: str
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """What all of them found."""

    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """What does not hold."""
        return tuple(result for result in self.results if result.status == "fail")

    @property
    def ok(self) -> bool:
        """Whether nothing failed, and something was asked."""
        return not self.failures and any(result.status == "pass" for result in self.results)


def run(target: Target, names: Collection[str] | None = None) -> Report:
    """Ask everything that can be asked of a target; an exception is a failure of that check.

    Args:
        target: With `rank`, with `retriever`, or with both.
        names: Only these checks.

    Raises:
        UsageError: The target has neither, or there is no such check.
    """
    known = {check.name for check in CHECKS}
    for name in names or ():
        if name not in known:
            raise UsageError(f"There is no check {name!r}", hint=did_you_mean(name, known))
    if not (hasattr(target, "rank") or hasattr(target, "retriever")):
        raise UsageError(
            f"{type(target).__name__} has neither rank nor retriever",
            hint="See crossrag.testing.conformance for what a target is",
        )
    chosen = [check for check in CHECKS if names is None or check.name in names]
    index: Any = _filled(target) if any(check.part == "retrieve" for check in chosen) else None
    try:
        return Report(tuple(_result(check, target if check.part == "rerank" else index) for check in chosen))
    finally:
        if hasattr(index, "close"):
            index.close()


def _filled(target: Any) -> Any:
    """The corpus in the target's index; the exception where that failed; None where there is no such part."""
    if not hasattr(target, "retriever"):
        return None
    try:
        return target.retriever(CORPUS)
    except Exception as error:  # noqa: BLE001 - anybody's code raises what it likes
        return error


def _result(check: Check, asked: Any) -> Result:
    if isinstance(asked, Exception):
        verdict = failed(f"filling the index raised {_said(asked)}")
    elif asked is None or (check.part == "rerank" and not hasattr(asked, "rank")):
        verdict = not_applicable("no retriever" if check.part == "retrieve" else "no reranker")
    else:
        try:
            verdict = check.run(asked)
        except Exception as error:  # noqa: BLE001 - anybody's code raises what it likes
            verdict = failed(f"raised {_said(error)}")
    return Result(check.name, check.part, verdict.status, verdict.evidence, check.what, check.why)


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__

"""Cases as the guide writes them -> what a judge takes; and which judge there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crossrag.errors import MissingExtraError, UsageError
from crossrag.evaluation.answers import bare
from crossrag.evaluation.by_ragas import RagasJudge
from crossrag.evaluation.dataset import Question
from crossrag.evaluation.local import LocalJudge
from crossrag.evaluation.records import Answered
from crossrag.pipeline import Rag
from crossrag.sentences import split_sentences

if TYPE_CHECKING:
    from crossrag.evaluation.judging import Judge

MEASURES = ("faithfulness", "answer_relevancy", "context_precision", "context_recall")
Cases = list[tuple[Question, Answered]]
_NAMES = {
    "question": "user_input",
    "answer": "response",
    "contexts": "retrieved_contexts",
    "ground_truth": "reference",
}
"""RAGAS's names of old and of now."""


def read_cases(cases: Sequence[Mapping[str, Any]]) -> Cases:
    """Question and answer of each.

    Raises:
        UsageError: There is none, or one lacks something.
    """
    if not cases:
        raise UsageError("There are no test cases", hint="Give at least one")
    return [_read(number, case) for number, case in enumerate(cases, start=1)]


def judge_for(model: str | None, rag: Rag | None) -> tuple[Judge, str]:
    """The judge, and who that is.

    Args:
        model: For RAGAS; None for that of the settings, if it is OpenAI's or compatible.
        rag: Whose models and settings; None for those of this place.

    Raises:
        MissingExtraError: `model` is given and RAGAS is not installed.
    """
    rag = rag or Rag.open()
    backend, _, named = rag.settings.generator.model.partition(":")
    wanted = model or (named if backend == "openai" else "")
    why = "no judge was configured"
    if wanted:
        chat = rag.settings.openai
        try:
            ragas: Judge = RagasJudge(
                wanted,
                measures=MEASURES,
                base_url=chat.base_url,
                api_key=chat.api_key.get_secret_value() if chat.api_key else None,
                embedder=rag.embedder,
            )
        except MissingExtraError as error:
            if model:
                raise
            why = f"not by RAGAS: {error.message}"
        else:
            return ragas, f"RAGAS with {wanted}"
    local = LocalJudge(grounder=rag.grounder, reranker=rag.reranker)
    return local, f"models of this machine ({why})"


def _read(number: int, case: Mapping[str, Any]) -> tuple[Question, Answered]:
    question, answer, contexts, truth = (_field(number, case, old, now) for old, now in _NAMES.items())
    if isinstance(contexts, str) or not all(isinstance(text, str) for text in contexts):
        raise UsageError(
            f"Test case {number}: contexts is no list of texts", hint="Give the texts of the documents"
        )
    text = bare(str(answer))
    sentences = [text[one.start : one.end] for one in split_sentences(text) if not one.heading]
    asked = Question(id=str(number), text=str(question), answers=(str(truth),) if truth else ())
    return asked, Answered(
        text=text,
        status="answered",
        claims=tuple((sentence, ()) for sentence in sentences),
        sources=tuple(contexts),
    )


def _field(number: int, case: Mapping[str, Any], old: str, now: str) -> Any:
    for name in (old, now):
        if name in case:
            return case[name]
    raise UsageError(f"Test case {number} has no {old!r}", hint=f"Each has {', '.join(_NAMES)}")

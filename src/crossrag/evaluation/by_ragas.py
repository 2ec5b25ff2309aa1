"""A judge that is RAGAS 0.4 itself, with any OpenAI-compatible model: its metrics, unchanged, one by one.

The names of old are aliases of its classes. Its telemetry is off. What the model refuses, or does not say in
the form that was asked for, is NaN, and counted by whoever calls.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crossrag.errors import GeneratorError, MissingExtraError, UsageError, did_you_mean

from .answers import bare

if TYPE_CHECKING:
    from crossrag.protocols import Embedder

    from .dataset import Question
    from .judging import Verdict
    from .records import Answered

METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "faithfulness": ("Faithfulness", ("user_input", "response", "retrieved_contexts")),
    "answer_relevancy": ("AnswerRelevancy", ("user_input", "response")),
    "context_precision": ("ContextPrecision", ("user_input", "reference", "retrieved_contexts")),
    "context_utilization": (
        "ContextPrecisionWithoutReference",
        ("user_input", "response", "retrieved_contexts"),
    ),
    "context_recall": ("ContextRecall", ("user_input", "retrieved_contexts", "reference")),
    "answer_correctness": ("AnswerCorrectness", ("user_input", "response", "reference")),
    "factual_correctness": ("FactualCorrectness", ("response", "reference")),
}
"""Name -> RAGAS's class and what it is given."""
DEFAULT = ("faithfulness", "answer_relevancy", "context_precision", "context_recall", "answer_correctness")
_EMBEDDED = {"answer_relevancy", "answer_correctness"}
_TRIES = 2
"""Times a model is asked for a form before it counts as a refusal."""


@dataclass(slots=True)
class Spent:
    """What the endpoint says that it has read and written."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, usage: Any) -> None:
        """One reply's; some servers say nothing, or something else."""
        self.requests += 1
        for name in ("prompt_tokens", "completion_tokens"):
            count = getattr(usage, name, None)
            setattr(self, name, getattr(self, name) + (count if isinstance(count, int) else 0))


class RagasJudge:
    """RAGAS with a model behind an OpenAI-compatible endpoint.

    Args:
        model: Name on the endpoint.
        measures: Names as in `METRICS`; the five of old where it is empty.
        base_url: Endpoint; None for OpenAI's own.
        api_key: Key; None for OPENAI_API_KEY.
        embedder: Compares questions and answers, in place of a service.

    Raises:
        MissingExtraError: RAGAS is not installed, or does not import.
        UsageError: A name is unknown.
    """

    def __init__(
        self,
        model: str,
        *,
        measures: Sequence[str] = (),
        base_url: str | None = None,
        api_key: str | None = None,
        embedder: Embedder,
        timeout: float = 120.0,
    ) -> None:
        self._names = tuple(measures) or DEFAULT
        for name in self._names:
            if name not in METRICS:
                raise UsageError(f"RAGAS measures no {name!r}", hint=did_you_mean(name, METRICS))
        library, base = _library()
        client = _client(base_url, api_key, timeout)
        self.spent = Spent()
        llm, embeddings = _llm(base, client, model, self.spent), _embeddings(embedder)
        self._metrics = {
            name: getattr(library, METRICS[name][0])(
                llm=llm, **({"embeddings": embeddings} if name in _EMBEDDED else {})
            )
            for name in self._names
        }
        self.fingerprint = (
            f"ragas:{version('ragas')}:{model} at {base_url or 'openai'} {embedder.fingerprint}"
        )

    @property
    def measures(self) -> tuple[str, ...]:
        """With `ragas_` before them, so that they are not taken for the local ones."""
        return tuple(f"ragas_{name}" for name in self._names)

    def judge(self, question: Question, answered: Answered) -> Verdict:
        """One value per measure; None where it does not apply, NaN where the model gave none.

        Raises:
            GeneratorError: The endpoint cannot be reached, or refuses the key or the model.
        """
        known: dict[str, Any] = {
            "user_input": question.text,
            "response": bare(answered.text) if answered.claims else "",
            "retrieved_contexts": list(answered.sources),
            "reference": max(question.answers, key=lambda text: (len(text), text), default=""),
        }
        return {f"ragas_{name}": self._value(name, known) for name in self._names}

    def _value(self, name: str, known: Mapping[str, Any]) -> float | None:
        given = {key: known[key] for key in METRICS[name][1]}
        if not all(given.values()):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = float(asyncio.run(self._metrics[name].ascore(**given)).value)
        except (_RefusalError, ValueError, TypeError, KeyError, IndexError):
            return math.nan
        return value if math.isfinite(value) else math.nan


class _RefusalError(Exception):
    """The model did not say what was asked for."""


def _library() -> tuple[Any, Any]:
    """`ragas.metrics.collections` and the class that its models inherit."""
    for module in ("ragas", "openai"):
        if find_spec(module) is None:
            raise MissingExtraError(f"RAGAS needs the package {module}", hint="pip install 'crossrag[ragas]'")
    # Before the import: it sends events from then on.
    os.environ["RAGAS_DO_NOT_TRACK"] = "true"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ragas.llms import InstructorBaseRagasLLM
            from ragas.metrics import collections
    except ImportError as error:
        raise MissingExtraError(
            f"RAGAS is installed and does not import: {error}",
            hint="pip install 'crossrag[ragas]', which pins a langchain-community that it goes with",
        ) from None
    return collections, InstructorBaseRagasLLM


def _client(base_url: str | None, api_key: str | None, timeout: float) -> Any:
    import openai

    try:
        return openai.OpenAI(base_url=base_url, api_key=api_key, timeout=timeout, max_retries=2)
    except openai.OpenAIError as error:
        raise GeneratorError(f"The judge cannot be asked: {error}", hint="Set OPENAI_API_KEY") from None


def _llm(base: Any, client: Any, model: str, spent: Spent) -> Any:
    class Asked(base):  # type: ignore[misc]
        """RAGAS's prompt and the form it wants -> the form, filled in by the model."""

        def generate(self, prompt: str, response_model: Any) -> Any:
            schema = json.dumps(response_model.model_json_schema())
            text = f"{prompt}\n\nReply with one JSON object of this schema and nothing else:\n{schema}"
            for _ in range(_TRIES):
                reply = _reply(client, model, text, spent)
                begin, end = reply.find("{"), reply.rfind("}")
                try:
                    return response_model.model_validate_json(reply[begin : end + 1])
                except ValueError:
                    continue
            raise _RefusalError

        async def agenerate(self, prompt: str, response_model: Any) -> Any:
            return self.generate(prompt, response_model)

    return Asked()


def _reply(client: Any, model: str, text: str, spent: Spent) -> str:
    import openai

    try:
        said = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], temperature=0
        )
        spent.add(said.usage)
        return str(said.choices[0].message.content or "")
    except openai.BadRequestError as error:
        # A filter of the endpoint, or a prompt beyond its length: this question's misfortune alone.
        raise _RefusalError from error
    except openai.OpenAIError as error:
        raise GeneratorError(
            f"The judge {model} cannot be asked: {error}", hint="Check openai.base_url, the key and the model"
        ) from None
    except (AttributeError, IndexError, TypeError) as error:
        raise _RefusalError from error


def _embeddings(embedder: Embedder) -> Any:
    from ragas.embeddings.base import BaseRagasEmbedding

    class Local(BaseRagasEmbedding):  # type: ignore[misc, unused-ignore]
        """Our embedder in RAGAS's form."""

        def embed_text(self, text: str, **_: Any) -> list[float]:
            return [float(value) for value in embedder.embed_documents([text])[0]]

        async def aembed_text(self, text: str, **_: Any) -> list[float]:
            return self.embed_text(text)

    return Local()

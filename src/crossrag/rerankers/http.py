"""Rerank endpoints in four dialects: Cohere v2, Jina, vLLM and text-embeddings-inference (TEI).

    cohere  POST /v2/rerank  {model, query, documents, top_n}     -> {results: [{index, relevance_score}]}
    jina    POST /v1/rerank  the same, and return_documents       -> the same
    vllm    POST /v1/rerank  the same as cohere                   -> the same
    tei     POST /rerank     {query, texts, raw_scores, truncate} -> [{index, score}]

https://docs.cohere.com/reference/rerank, https://api.jina.ai/redoc, https://docs.vllm.ai (serving),
https://huggingface.github.io/text-embeddings-inference. Whether a server cuts long passages, it does not say.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from crossrag.errors import ConfigError, ModelError, did_you_mean
from crossrag.types import Relevance, Scores

_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_ALMOST = 1e-6


@dataclass(frozen=True, slots=True)
class _Dialect:
    path: str
    base_url: str | None
    model: str | None
    batch_size: int
    texts: str = "documents"
    score: str = "relevance_score"
    extra: tuple[tuple[str, Any], ...] = ()
    key_variable: str = ""


_DIALECTS: Mapping[str, _Dialect] = {
    "cohere": _Dialect(
        "/v2/rerank", "https://api.cohere.com", "rerank-v3.5", 1000, key_variable="COHERE_API_KEY"
    ),
    "jina": _Dialect(
        "/v1/rerank",
        "https://api.jina.ai",
        "jina-reranker-v2-base-multilingual",
        1000,
        extra=(("return_documents", False),),
        key_variable="JINA_API_KEY",
    ),
    "vllm": _Dialect("/v1/rerank", None, None, 256),
    "tei": _Dialect("/rerank", None, None, 32, "texts", "score", (("raw_scores", False), ("truncate", True))),
}


class HttpReranker:
    """Asks a server for relevance.

    Args:
        dialect: `cohere`, `jina`, `vllm` or `tei`.
        base_url: Where the server is; the makers' own for cohere and jina.
        model: As the server calls it; TEI serves one and needs no name.
        api_key: Sent as bearer token; None reads COHERE_API_KEY or JINA_API_KEY, where there is one.
        timeout: Seconds for one request.
        max_retries: Further tries when the server is busy.
        revision: Part of the fingerprint: the server may exchange its model under the same name, and says
            nothing of it. None where nobody keeps count.
        sleep: Waits that many seconds between tries.
        transport: In place of the network, for tests.
        threads: Not used; every reranker takes it.

    Raises:
        ConfigError: The dialect is unknown, or an address or model is missing.
    """

    def __init__(  # noqa: PLR0913 - settings of one endpoint
        self,
        dialect: str,
        *,
        base_url: str | None = None,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        revision: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
        threads: int = 0,  # noqa: ARG002 - every reranker takes it
    ) -> None:
        if dialect not in _DIALECTS:
            raise ConfigError(f"There is no dialect {dialect!r}", hint=did_you_mean(dialect, set(_DIALECTS)))
        self._dialect = _DIALECTS[dialect]
        address = base_url or self._dialect.base_url
        if address is None:
            raise ConfigError(f"http:{dialect} needs an address", hint="Set rerank_http.base_url")
        self._model = model or self._dialect.model
        if self._model is None and dialect == "vllm":
            raise ConfigError(
                "http:vllm needs a model", hint="Set rerank_http.model to the one that it serves"
            )
        self._address = address.rstrip("/") + self._dialect.path
        api_key = api_key or os.environ.get(self._dialect.key_variable)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(headers=headers, timeout=timeout, transport=transport)
        self._timeout, self._max_retries, self._sleep = timeout, max_retries, sleep
        self.fingerprint = f"http:{dialect}:{address}:{self._model or ''}"
        if revision:
            self.fingerprint += f"@{revision}"
        self.exchangeable = not revision
        """Whether another model may come to answer under the same fingerprint; see `score_cache`."""

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,  # noqa: ARG002 - part of the seam
        top_k: int | None = None,  # noqa: ARG002 - every pair costs the same here
        deadline: float | None = None,
    ) -> Relevance:
        """One relevance per text, as the server says; the logit is its log-odds.

        Raises:
            ModelError: The server cannot be reached, refuses, or answers something else.
        """
        relevance = [math.nan] * len(texts)
        unread = [True] * len(texts)
        for start in range(0, len(texts), self._dialect.batch_size):
            if deadline is not None and time.monotonic() >= deadline:
                break
            batch = texts[start : start + self._dialect.batch_size]
            said = self._asked(query, batch, deadline)
            if said is None:
                break
            for offset, score in said.items():
                relevance[start + offset], unread[start + offset] = score, False
        return Relevance(
            relevance=tuple(relevance),
            logit=tuple(map(_log_odds, relevance)),
            truncated=(False,) * len(texts),
            unread=tuple(unread),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _body(self, query: str, texts: Sequence[str]) -> dict[str, Any]:
        body: dict[str, Any] = {"query": query, self._dialect.texts: list(texts), **dict(self._dialect.extra)}
        if self._model:
            body["model"] = self._model
        if self._dialect.score == "relevance_score":
            body["top_n"] = len(texts)
        return body

    def _asked(self, query: str, texts: Sequence[str], deadline: float | None) -> dict[int, float] | None:
        """Scores by position; None if the deadline passed while waiting."""
        body = self._body(query, texts)
        problem, hint = "", "Check that the server runs"
        for attempt in range(self._max_retries + 1):
            left = self._timeout if deadline is None else min(self._timeout, deadline - time.monotonic())
            if left <= 0:
                return None
            try:
                response = self._client.post(self._address, json=body, timeout=left)
            except httpx.TimeoutException:
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                problem = f"gave no answer within {left:.0f} s"
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem = f"cannot be reached: {error}"
            else:
                if response.status_code < 400:
                    return self._read(response, len(texts))
                problem = f"answered {response.status_code}: {response.text[:200]}"
                if response.status_code not in _RETRIED:
                    hint = "Check rerank_http.base_url, model and api_key"
                    break
            if attempt < self._max_retries and not self._waited(attempt, deadline):
                return None
        raise ModelError(f"The reranker at {self._address} {problem}", hint=hint)

    def _waited(self, attempt: int, deadline: float | None) -> bool:
        """Before the next try; False, and at once, where the deadline would pass meanwhile."""
        pause = min(2.0**attempt, 8.0)
        if deadline is not None and time.monotonic() + pause >= deadline:
            return False
        self._sleep(pause)
        return True

    def _read(self, response: httpx.Response, count: int) -> dict[int, float]:
        try:
            said = response.json()
            rows = said if isinstance(said, list) else said["results"]
            scores = {int(row["index"]): float(row[self._dialect.score]) for row in rows}
        except (ValueError, KeyError, TypeError, OverflowError):
            raise ModelError(
                f"The reranker at {self._address} answered something else than scores: {response.text[:200]}",
                hint="Check that the dialect is the server's",
            ) from None
        if sorted(scores) != list(range(count)) or len(rows) != count:
            raise ModelError(
                f"The reranker at {self._address} answered {len(rows)} scores for {count} passages",
                hint="Check that the dialect is the server's",
            )
        if any(not -_ALMOST <= score <= 1 + _ALMOST for score in scores.values() if math.isfinite(score)):
            raise ModelError(
                f"The reranker at {self._address} gives scores outside [0, 1]",
                hint="Let the server apply the sigmoid",
            )
        return {
            index: min(1.0, max(0.0, score)) if math.isfinite(score) else math.nan
            for index, score in scores.items()
        }


def _log_odds(probability: float) -> float:
    if not math.isfinite(probability):
        return math.nan
    kept = min(1 - 1e-12, max(1e-12, probability))
    return math.log(kept / (1 - kept))

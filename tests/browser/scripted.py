"""Replies of the native API as a test wants them, for states that fakes do not get into."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

TEXT = "Leave lasts fourteen months. It is paid by the state. 🌻 Tell the office."
DOCUMENT = "d" + "0" * 24


def passage(number: int = 1, **more: Any) -> dict[str, Any]:
    """A passage of the one document."""
    return {
        "id": f"p{number}",
        "document_id": DOCUMENT,
        "source": "handbook/leave.md",
        "title": "Leave",
        "location": "handbook/leave.md, Leave",
        "text": TEXT,
        "start": 0,
        "end": len(TEXT),
        "page": None,
        "page_name": "",
        "title_path": ["Leave"],
        "metadata": {},
        **more,
    }


def candidate(number: int, relevance: float | None, **more: Any) -> dict[str, Any]:
    """A passage of the ranking, where the reranker turned the order round."""
    scores = dict.fromkeys(("dense", "sparse", "fused", "logit"), 0.5) | {
        "dense_rank": 9 - number,
        "sparse_rank": None,
        "fused_rank": 9 - number,
        "relevance": relevance,
        "rerank_rank": number,
    }
    kept = relevance is not None and relevance >= 0.3
    return passage(number) | {
        "rank": number,
        "scores": scores,
        "kept": kept,
        "truncated": False,
        "window": None,
        "duplicates": [],
        **more,
    }


def ranking(**more: Any) -> dict[str, Any]:
    """Two passages kept and one cut."""
    return {
        "query": "leave",
        "threshold": 0.3,
        "candidates": [candidate(1, 0.9), candidate(2, 0.6), candidate(3, 0.1)],
        "first_stage": None,
        "degraded": [],
        "notices": [],
        "timings": {"retrieve": 0.01, "rerank": 0.2},
        "total_candidates": 3,
        **more,
    }


def claim(text: str, sentence: str, **more: Any) -> dict[str, Any]:
    """The claim that a sentence of the answer makes."""
    start = text.index(sentence)
    given = {"start": start, "end": start + len(sentence), "text": sentence, "citations": [1]}
    return given | {"supported": None, "support": None, "verbatim": False, **more}


def citation(text: str, mark: str, occurrence: int = 0, **more: Any) -> dict[str, Any]:
    """The citation at the n-th place where a mark such as `[1]` stands."""
    start = -1
    for _ in range(occurrence + 1):
        start = text.index(mark, start + 1)
    given = {
        "number": int(mark[1:-1]),
        "start": start,
        "end": start + len(mark),
        "source": "handbook/leave.md",
    }
    place = {
        "document_id": DOCUMENT,
        "passage_start": 0,
        "passage_end": len(TEXT),
        "quote": "",
        "quote_start": None,
    }
    return given | place | {"supported": None, "support": None, **more}


def answer(text: str, **more: Any) -> dict[str, Any]:
    """A whole answer from one source."""
    return {
        "id": "a1",
        "question": "How long is leave?",
        "text": text,
        "status": "answered",
        "citations": [],
        "claims": [],
        "reasons": [],
        "degraded": [],
        "notices": [],
        "sources": [passage() | {"number": 1, "relevance": 0.9, "chunk_ids": ["p1"]}],
        "dropped": 0,
        "context_tokens": 40,
        "ranking": ranking(),
        "timings": {"retrieve": 0.01, "rerank": 0.2, "answer": 0.1},
        "collection": "default",
        **more,
    }


def events(whole: Mapping[str, Any], *, ends: Sequence[tuple[str, Any]] | None = None) -> str:
    """The stream of an answer; `ends` stands in place of its last event."""
    told: list[tuple[str, Any]] = [
        (
            "retrieved",
            {
                key: whole[key]
                for key in ("id", "sources", "dropped", "context_tokens", "ranking", "collection")
            },
        )
    ]
    done = 0
    for each in whole["claims"]:
        told.append(("delta", {"text": whole["text"][done : each["end"]]}))
        done = each["end"]
        told.append(("claimed", {"claim": each}))
        cited = [one for one in whole["citations"] if each["start"] <= one["start"] < each["end"]]
        told.extend(("cited", {"citation": one}) for one in cited)
        if each["supported"] is False:
            told.append(("unsupported", {"claim": each}))
    told.append(("delta", {"text": whole["text"][done:]}))
    told.extend([("done", {"answer": whole})] if ends is None else ends)
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in told)


def reply_with(page: Page, stream: str) -> None:
    """Let the service's next answers be this stream; what the page looks up besides is not there."""
    page.route(
        "**/api/v1/answer",
        lambda route: route.fulfill(status=200, content_type="text/event-stream", body=stream),
    )
    page.route("**/api/v1/search", lambda route: route.fulfill(status=404, json=problem(404, "Not found")))


def refuse_with(page: Page, status: int, *, headers: Mapping[str, str] | None = None, **more: str) -> None:
    """Let the service refuse to answer."""
    body = problem(status, **more)
    page.route(
        "**/api/v1/answer",
        lambda route: route.fulfill(
            status=status,
            headers=dict(headers or {}),
            content_type="application/problem+json",
            body=json.dumps(body),
        ),
    )


def problem(
    status: int, title: str = "It did not work", detail: str = "", hint: str = "", code: str = "internal"
) -> dict[str, Any]:
    """Problem details, as the service gives them."""
    given = {"type": "about:blank", "title": title, "status": status, "detail": detail, "hint": hint}
    return given | {"code": code, "request_id": "r1"}

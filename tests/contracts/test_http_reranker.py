"""Rerank endpoints in four dialects: what is sent, what is made of the answer, and what goes wrong."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from crossrag.errors import ConfigError, ModelError
from crossrag.rerankers.http import HttpReranker
from crossrag.testing import OverlapReranker, RerankerContract

if TYPE_CHECKING:
    from crossrag.protocols import Reranker

DIALECTS = ("cohere", "jina", "vllm", "tei")
QUERY = "restore a backup"
TEXTS = ("Whales", "A backup", "Restore a backup")


class Server:
    """Scores by shared words and answers out of order, in its dialect; first with `failures`, if any."""

    def __init__(self, dialect: str, *failures: httpx.Response | Exception) -> None:
        self.dialect, self.failures = dialect, list(failures)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        body = json.loads(request.content)
        tei = self.dialect == "tei"
        texts = body["texts" if tei else "documents"]
        scores = OverlapReranker().score(body["query"], texts).relevance
        rows = [
            {"index": index, "score" if tei else "relevance_score": score}
            for index, score in enumerate(scores)
        ]
        shuffled = rows[1::2] + rows[::-2] if len(rows) % 2 else rows[1::2] + rows[-2::-2]
        return httpx.Response(200, json=shuffled if tei else {"id": "x", "results": shuffled})

    def reranker(self, **arguments: Any) -> HttpReranker:
        given = {"base_url": "http://here:8080/", "model": "m"} | arguments
        return HttpReranker(
            self.dialect, **given, sleep=self.slept.append, transport=httpx.MockTransport(self)
        )

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COHERE_API_KEY", "JINA_API_KEY"):
        monkeypatch.delenv(name, raising=False)


class TestContract(RerankerContract):
    @pytest.fixture(params=DIALECTS)
    def reranker(self, request: pytest.FixtureRequest) -> Iterator[Reranker]:
        with closing(Server(request.param).reranker()) as made:
            yield made


@pytest.mark.parametrize(
    ("dialect", "arguments", "url", "body"),
    [
        (
            "cohere",
            {"base_url": None, "model": None},
            "https://api.cohere.com/v2/rerank",
            {"model": "rerank-v3.5", "query": QUERY, "documents": list(TEXTS), "top_n": 3},
        ),
        (
            "jina",
            {"base_url": None, "model": None},
            "https://api.jina.ai/v1/rerank",
            {
                "model": "jina-reranker-v2-base-multilingual",
                "query": QUERY,
                "documents": list(TEXTS),
                "top_n": 3,
                "return_documents": False,
            },
        ),
        (
            "vllm",
            {},
            "http://here:8080/v1/rerank",
            {"model": "m", "query": QUERY, "documents": list(TEXTS), "top_n": 3},
        ),
        (
            "tei",
            {"model": None},
            "http://here:8080/rerank",
            {"query": QUERY, "texts": list(TEXTS), "raw_scores": False, "truncate": True},
        ),
    ],
)
def test_each_dialect_is_spoken_as_its_server_expects(
    dialect: str, arguments: dict[str, Any], url: str, body: dict[str, Any]
) -> None:
    server = Server(dialect)
    with closing(server.reranker(**arguments, api_key="key")) as reranker:
        said = reranker.score(QUERY, TEXTS)
    assert said.relevance == OverlapReranker().score(QUERY, TEXTS).relevance
    assert said.logit[1] == pytest.approx(math.log(2))  # two of three words
    (request,) = server.requests
    assert (request.method, str(request.url), json.loads(request.content)) == ("POST", url, body)
    assert request.headers["Authorization"] == "Bearer key"


def test_a_key_comes_from_the_variable_of_its_dialect_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHERE_API_KEY", "from-cohere")
    sent = {}
    for dialect in DIALECTS:
        server = Server(dialect)
        server.reranker().score(QUERY, TEXTS)
        sent[dialect] = server.requests[0].headers.get("Authorization")
    assert sent == {"cohere": "Bearer from-cohere", "jina": None, "vllm": None, "tei": None}


def test_a_busy_server_is_asked_again_after_growing_pauses() -> None:
    server = Server("jina", httpx.Response(503), httpx.ConnectError("refused"))
    said = server.reranker().score(QUERY, TEXTS)
    assert said.relevance == OverlapReranker().score(QUERY, TEXTS).relevance
    assert (len(server.requests), server.slept) == (3, [1.0, 2.0])


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (lambda: httpx.Response(503, text="overloaded"), "answered 503: overloaded.*server runs"),
        (lambda: httpx.ConnectError("refused"), "cannot be reached: refused"),
        (lambda: httpx.ReadTimeout("slow"), "no answer within 5 s"),
    ],
)
def test_what_never_works_is_given_up(failure: Callable[[], httpx.Response | Exception], says: str) -> None:
    server = Server("tei", *(failure() for _ in range(9)))
    with pytest.raises(ModelError, match=f"http://here:8080/rerank {says}" if "50" in says else says):
        server.reranker(max_retries=1, timeout=5.0).score(QUERY, TEXTS)
    assert (len(server.requests), server.slept) == (2, [1.0])


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refusal_is_final(status: int) -> None:
    server = Server("cohere", httpx.Response(status, json={"message": "no"}))
    with pytest.raises(ModelError, match=rf"answered {status}: .*api_key"):
        server.reranker().score(QUERY, TEXTS)
    assert (len(server.requests), server.slept) == (1, [])


def rows(*pairs: tuple[object, object]) -> bytes:
    return json.dumps([{"index": index, "score": score} for index, score in pairs]).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (rows((0, 0.1), (1, 0.2)), "2 scores for 3 passages"),
        (rows((0, 0.1), (1, 0.2), (2, 0.3), (3, 0.4)), "4 scores for 3 passages"),
        (rows((0, 0.1), (1, 0.2), (2, 0.3), (2, 0.3)), "4 scores for 3 passages"),
        (rows((0, 0.1), (1, 0.2), (1, 0.3)), "3 scores for 3 passages"),
        (rows((1, 0.1), (2, 0.2), (3, 0.3)), "3 scores for 3 passages"),
        (rows((0, 0.1), (1, 7.5), (2, 0.3)), r"outside \[0, 1\]"),
        (rows((0, 0.1), (1, -0.1), (2, 0.3)), r"outside \[0, 1\]"),
        (rows((0, 0.1), (1, None), (2, 0.3)), "something else than scores"),
        (rows((0, 0.1), (1, 0.2), (math.inf, 0.3)), "something else than scores"),
        (b'{"results": [{"index": 0, "relevance_score": 0.5}]}', "something else than scores"),
        (b'{"data": []}', "something else than scores"),
        (b"<html>Welcome</html>", "something else than scores: <html>Welcome"),
        (b"\xff\xfe\xfd", "something else than scores"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(content: bytes, says: str) -> None:
    server = Server("tei", httpx.Response(200, content=content))
    with pytest.raises(ModelError, match=says):
        server.reranker().score(QUERY, TEXTS)
    assert len(server.requests) == 1


def test_scores_that_are_no_numbers_stay_so_and_rounding_is_forgiven() -> None:
    content = rows((0, math.nan), (1, math.inf), (2, 1.0000001), (3, -1e-9), (4, 0.5))
    said = Server("tei", httpx.Response(200, content=content)).reranker().score(QUERY, ["text"] * 5)
    assert [math.isnan(value) for value in said.relevance] == [True, True, False, False, False]
    assert [math.isfinite(value) for value in said.logit] == [False, False, True, True, True]
    assert (said.relevance[2:], said.logit[4]) == ((1.0, 0.0, 0.5), 0.0)
    assert not any(said.unread)


def test_after_the_deadline_nothing_is_asked() -> None:
    server = Server("vllm")
    said = server.reranker().score(QUERY, TEXTS, deadline=time.monotonic() - 1)
    assert (said.unread, server.requests) == ((True,) * 3, [])
    assert all(map(math.isnan, (*said.relevance, *said.logit)))


def test_no_pause_goes_past_the_deadline() -> None:
    server = Server("vllm", *(httpx.Response(503) for _ in range(3)))
    said = server.reranker().score(QUERY, TEXTS, deadline=time.monotonic() + 0.9)
    assert (said.unread, server.slept) == ((True,) * 3, [])


def test_many_passages_go_in_batches_and_come_back_in_their_places() -> None:
    server = Server("tei")
    texts = [TEXTS[number % 3] for number in range(70)]
    said = server.reranker().score(QUERY, texts)
    assert [len(body["texts"]) for body in server.bodies()] == [32, 32, 6]
    assert said.relevance == OverlapReranker().score(QUERY, texts).relevance


def test_scores_of_another_server_or_model_are_others() -> None:
    made = [{}, {"model": "n"}, {"base_url": "http://there"}]
    assert len({Server("vllm").reranker(**arguments).fingerprint for arguments in made}) == 3


@pytest.mark.parametrize(
    ("dialect", "arguments", "says"),
    [
        ("choere", {}, "Did you mean 'cohere'"),
        ("vllm", {"model": "m"}, "needs an address"),
        ("tei", {}, "needs an address"),
        ("vllm", {"base_url": "http://here"}, "needs a model"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_sent(
    dialect: str, arguments: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        HttpReranker(dialect, **arguments)  # type: ignore[arg-type]


def test_an_address_that_is_none_is_an_error_of_ours() -> None:
    with pytest.raises(ModelError, match="cannot be reached"):
        Server("tei").reranker(base_url="http://here:port").score(QUERY, TEXTS)

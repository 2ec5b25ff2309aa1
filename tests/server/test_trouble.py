"""Whatever fails, every reply has one clear end: streams (promise 26), stages (28), orders to stop (31)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from crossrag.errors import GeneratorError, ModelError, StoreError
from crossrag.generators.openai import OpenAIGenerator
from crossrag.prompt import messages
from crossrag.testing import CannedGenerator, Fault, HashedEmbedder, OverlapReranker
from tests.fake_openai import FakeOpenAI
from tests.test_cut_answers import BEHAVIOURS

from .conftest import listening, wait_until
from .test_service import QUESTION, events

if TYPE_CHECKING:
    from crossrag.server.service import Service


@pytest.fixture
def upstream() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


def test_a_stream_has_one_end_whatever_the_model_does(
    make: Callable[..., Service], upstream: FakeOpenAI
) -> None:
    generator = OpenAIGenerator(
        render=messages, base_url=upstream.base_url, api_key="k", timeout=0.5, max_retries=0
    )
    service = make(generator=generator, breaker_failures=1_000)
    service.rag(None, "").__dict__["fallback"] = None
    statuses: set[int] = set()
    chat = {"model": "rag", "messages": [{"role": "user", "content": QUESTION}]}
    with (
        listening(service) as found,
        openai.OpenAI(base_url=f"{found.url}/v1", api_key="none", max_retries=0) as sdk,
    ):
        for name, reply in BEHAVIOURS.items():
            answers = name == "answers"
            upstream.play(reply)
            native = httpx.post(
                f"{found.url}/api/v1/answer", json={"question": QUESTION, "stream": True}, timeout=20
            )
            names = [event for event, _ in events(native.text)]
            assert names[-1:] == (["done"] if answers else ["error"]), (name, native.text)
            assert names.count("done") + names.count("error") == 1, name
            upstream.play(reply)
            try:
                chunks = list(sdk.chat.completions.create(**chat, stream=True))  # type: ignore[call-overload]
            except openai.APIError:
                assert not answers, name
            else:
                assert answers, name
                ends = [one.choices[0].finish_reason for one in chunks if one.choices]
                assert ends.count("stop") == 1
            upstream.play(reply)
            try:
                whole = sdk.chat.completions.create(**chat)  # type: ignore[call-overload]
            except openai.APIStatusError as error:
                statuses.add(error.status_code)
            else:
                assert answers, name
                assert whole.choices[0].finish_reason == "stop"
    assert statuses == {502, 503}


SEAMS = ("rerank", "dense", "llm", "store")


class Switched(Fault):
    """Fails while it is switched off."""

    down = False

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if self.down else getattr(self._backend, name)


def test_every_combination_of_what_may_be_down(make: Callable[..., Service]) -> None:
    parts = {
        "rerank": Switched(OverlapReranker(), error=ModelError("down")),
        "dense": Switched(HashedEmbedder(), methods={"embed_query"}, error=ModelError("down")),
        "llm": Switched(
            CannedGenerator(["Stop the service and run the restore command [1]."]),
            methods={"stream"},
            error=GeneratorError("down", retryable=True),
        ),
    }
    service = make(
        reranker=parts["rerank"], embedder=parts["dense"], generator=parts["llm"], breaker_failures=1_000
    )
    rag = service.rag(None, "")
    rag.__dict__["fallback"] = rag.last_resort
    with listening(service) as found:
        parts["store"] = Switched(rag.index._pair._store, error=StoreError("the disk is gone"))
        rag.index._pair._store = parts["store"]
        for down in (some for count in range(5) for some in combinations(SEAMS, count)):
            for name, part in parts.items():
                part.down = name in down
            reply = httpx.post(f"{found.url}/api/v1/answer", json={"question": QUESTION}, timeout=30)
            ready = httpx.get(f"{found.url}/readyz")
            if "store" in down:
                assert (reply.status_code, ready.status_code) == (503, 503), down
                assert "disk" not in reply.text
                continue
            assert (reply.status_code, ready.status_code) == (200, 200), (down, reply.text)
            said = reply.json()
            assert set(said["degraded"]) == set(down), down
            assert "restore command" in said["text"], down
            assert len(said["notices"]) == len(down), said["notices"]
        for part in parts.values():
            part.down = False


SERVER = """
import sys, time
from pathlib import Path
from crossrag import Settings
from crossrag.config import IndexSettings, RerankingSettings, VerificationSettings
from crossrag.server.listening import serve
from crossrag.server.service import Service
from crossrag.server_settings import ServerSettings
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapReranker

class Talker:
    fingerprint = "talker"
    def stream(self, question, context, history=()):
        for number in range(int(sys.argv[2])):
            time.sleep(0.05)
            yield f"word{number} "

settings = Settings(
    index=IndexSettings(path=Path(sys.argv[1])),
    reranking=RerankingSettings(threshold=0.3),
    verification=VerificationSettings(model="none"),
    server=ServerSettings(port=0, grace_seconds=float(sys.argv[3])),
)
service = Service(settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms(),
                  reranker=OverlapReranker(), generator=Talker())
serve(settings, listening=lambda url: print(url, flush=True), service=service)
"""


@pytest.mark.parametrize(("words", "grace", "last"), [(30, 15, "done"), (100_000, 1, "error")])
def test_an_answer_under_way_ends_when_the_server_stops(
    indexed: Path, tmp_path: Path, words: int, grace: int, last: str
) -> None:
    import shutil

    shutil.copytree(indexed / "index", tmp_path / "index")
    command = [sys.executable, "-c", SERVER, str(tmp_path / "index"), str(words), str(grace)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = server.stdout.readline().strip()
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, 30)
        text: list[str] = []
        started = threading.Event()

        def read() -> None:
            body = {"question": QUESTION, "stream": True}
            try:
                with httpx.stream("POST", f"{url}/api/v1/answer", json=body, timeout=60) as reply:
                    for piece in reply.iter_text():
                        text.append(piece)
                        if 'word2"' in piece:
                            started.set()
            except httpx.TransportError:
                text.append("(cut)")

        reader = threading.Thread(target=read)
        reader.start()
        assert started.wait(20), "".join(text)[-800:]
        server.send_signal(signal.SIGTERM)
        told = time.monotonic()
        assert server.wait(timeout=grace + 20) == 0
        assert time.monotonic() - told < grace + 10
        reader.join(10)
        names = [name for name, _ in events("".join(text))]
        assert names[-1] == last, "".join(text)[-500:]
        assert names.count("done") + names.count("error") == 1
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    check = [sys.executable, "-m", "crossrag", "status", "--index", str(tmp_path / "index"), "--json"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert "another process" not in done.stderr, json.dumps(done.stderr)

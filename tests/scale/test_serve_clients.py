"""Asking replicas: lost ones, full ones, slow ones; and what is refused before a cluster is started."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from crossrag.config import (
    ContextSettings,
    EmbedderSettings,
    IndexSettings,
    QdrantSettings,
    RerankingSettings,
    Settings,
    VerificationSettings,
)
from crossrag.errors import ConfigError, ModelError
from crossrag.ray_settings import RaySettings
from crossrag.server.problems import Problem
from crossrag.server.tickets import Abandoned, Ticket, working_for
from crossrag.server_settings import ServerSettings
from crossrag.types import Relevance, Scores

if find_spec("ray") is None:
    pytest.skip("needs the extra ray", allow_module_level=True)

with warnings.catch_warnings():
    # Ray's own use of pydantic.
    warnings.simplefilter("ignore")
    from ray.exceptions import (
        ActorDiedError,
        NodeDiedError,
        ObjectLostError,
        OwnerDiedError,
        RayTaskError,
        WorkerCrashedError,
    )
    from ray.serve.exceptions import BackPressureError

from crossrag.scale import serve
from crossrag.scale.serve_clients import Replicas, ServedEmbedder, ServedReranker
from crossrag.scale.serve_models import Embedded, Embedding, Scored, Scoring


class Handle:
    """A deployment whose answers are said beforehand: exceptions are raised, callables are called."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []
        self.cancelled = 0

    def __getattr__(self, name: str) -> Handle:
        return self

    def remote(self, *arguments: object) -> Handle:
        self.asked.append(arguments[0] if arguments else None)
        return self

    def result(self, *, timeout_s: float) -> object:
        del timeout_s
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer(self.asked[-1]) if callable(answer) else answer

    def cancel(self) -> None:
        self.cancelled += 1


def said(fingerprint: str = "a") -> Callable[[Scoring], Scored]:
    def scored(asked: Scoring) -> Scored:
        count = len(asked.texts)
        return Scored(
            fingerprint,
            Relevance(
                relevance=(0.5,) * count,
                logit=(0.0,) * count,
                truncated=(False,) * count,
                unread=(False,) * count,
            ),
        )

    return scored


def replicas(handle: Handle, retries: int = 2) -> Replicas:
    return Replicas(handle, "reranker", retries=retries)


def test_a_lost_replica_is_made_good_by_another() -> None:
    handle = Handle(ActorDiedError(), ActorDiedError(), said())
    reranker = ServedReranker(replicas(handle))
    found = reranker.score("q", ["a", "b"], first_stage=[Scores(dense=0.1), Scores()], top_k=1)
    assert found.relevance == (0.5, 0.5)
    assert len(handle.asked) == 3
    assert handle.asked[0] == handle.asked[2]
    assert handle.asked[0].first_stage == (Scores(dense=0.1), Scores())
    assert handle.asked[0].seconds is None


@pytest.mark.parametrize(
    "lost",
    [
        NodeDiedError("gone"),  # type: ignore[no-untyped-call]
        ObjectLostError("ff" * 28, None, ""),
        OwnerDiedError("ff" * 28, None, ""),
        WorkerCrashedError(),
    ],
)
def test_a_lost_machine_is_made_good_by_another(lost: Exception) -> None:
    handle = Handle(lost, said())
    assert ServedReranker(replicas(handle)).score("q", ["a"]).relevance == (0.5,)
    with pytest.raises(ModelError, match="2 replicas of the reranker were lost"):
        ServedReranker(replicas(Handle(lost, lost), retries=1)).score("q", ["a"])


def test_replica_after_replica_lost_is_an_error() -> None:
    with pytest.raises(ModelError, match="3 replicas of the reranker were lost over one request"):
        ServedReranker(replicas(Handle(*[ActorDiedError()] * 3))).score("q", ["a"])


def test_too_much_to_do_ends_the_request_whatever_stages_make_of_it() -> None:
    ticket = Ticket("key")
    handle = Handle(BackPressureError(num_queued_requests=5, max_queued_requests=5))
    with working_for(ticket), pytest.raises(Problem) as refused:
        ServedReranker(replicas(handle)).score("q", ["a"])
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})
    with pytest.raises(Problem):
        ticket.check()


def test_nobody_waits_for_what_nobody_wants() -> None:
    ticket = Ticket("key")

    def leaves(_: object) -> object:
        ticket.abandon()
        raise TimeoutError

    handle = Handle(TimeoutError(), leaves)
    with working_for(ticket), pytest.raises(Abandoned):
        ServedReranker(replicas(handle)).score("q", ["a"])
    assert handle.cancelled == 1
    assert handle.answers == []


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (ModelError("It is broken"), "It is broken"),
        (ZeroDivisionError(), "The reranker failed: ZeroDivisionError"),
    ],
)
def test_what_fails_in_a_replica_fails_here(cause: Exception, says: str) -> None:
    error = RayTaskError("score", "traceback", cause)  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError, match=says):
        ServedReranker(replicas(Handle(error))).score("q", ["a"])


def test_another_model_is_noticed() -> None:
    reranker = ServedReranker(replicas(Handle(said("a"), said("a"), said("b"))))
    seen = []
    reranker.changed = lambda: seen.append(reranker.fingerprint)
    for _ in range(3):
        reranker.score("q", ["a"])
    assert seen == ["b"]
    assert reranker.score("q", []).relevance == ()


def test_an_embedder_may_not_change_under_an_index() -> None:
    def embedded(fingerprint: str) -> Callable[[Embedding], Embedded]:
        return lambda asked: Embedded(fingerprint, np.ones((len(asked.texts), 2), np.float32))

    handle = Handle(("a", 2), embedded("a"), embedded("a"), embedded("b"))
    embedder = ServedEmbedder(replicas(handle))
    assert embedder.dimension == 2
    assert embedder.embed_query("q").shape == (2,)
    assert embedder.embed_documents(["a", "b"]).shape == (2, 2)
    assert embedder.embed_documents([]).shape == (0, 2)
    with pytest.raises(ModelError, match="was exchanged"):
        embedder.embed_query("q")


# --- settings


def test_an_embedded_index_has_one_server() -> None:
    settings = Settings(ray=RaySettings(ingress_replicas=2))
    with pytest.raises(ConfigError, match=r"An embedded index has one server.*qdrant\.url"):
        serve.api_of(settings)
    assert serve.api_of(settings.model_copy(update={"qdrant": QdrantSettings(url="http://q:6333")})).digest


def test_it_is_closed_as_the_plain_server_is() -> None:
    with pytest.raises(ConfigError, match="there is no key"):
        serve.api_of(Settings(server=ServerSettings(host="::")))


def test_only_what_changed_is_deployed(tmp_path: Path) -> None:
    def digests(settings: Settings) -> tuple[str, str, str]:
        builders = (serve.reranker_of, serve.embedder_of, serve.api_of)
        first, second, third = (build(settings).digest for build in builders)
        return first, second, third

    base = digests(Settings())
    assert digests(Settings()) == base
    model = digests(Settings(reranking=RerankingSettings(model=f"progressive:{tmp_path}")))
    assert [one == other for one, other in zip(base, model, strict=True)] == [False, True, True]
    depth = digests(Settings(reranking=RerankingSettings(depth=50)))
    assert [one == other for one, other in zip(base, depth, strict=True)] == [True, True, False]
    key = digests(Settings(server=ServerSettings(api_key="one")))
    other = digests(Settings(server=ServerSettings(api_key="two")))
    assert len({base[2], key[2], other[2]}) == 3
    port = digests(Settings(server=ServerSettings(port=9)))
    assert port == base, "Serve listens, and no application of it"
    wide = digests(Settings(ray=RaySettings(reranker_max_replicas=9)))
    assert [one == other for one, other in zip(base, wide, strict=True)] == [False, True, True]


def test_other_files_of_a_model_are_another_one(tmp_path: Path) -> None:
    def digests() -> tuple[str, str, str]:
        settings = Settings(
            embedder=EmbedderSettings(model=f"onnx:{tmp_path}"),
            reranking=RerankingSettings(model=f"sentence-transformers:{tmp_path}"),
            verification=VerificationSettings(model=f"onnx:{tmp_path}"),
        )
        made = [build(settings).digest for build in (serve.reranker_of, serve.embedder_of, serve.api_of)]
        return made[0], made[1], made[2]

    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    before = digests()
    assert digests() == before
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    assert all(one != other for one, other in zip(before, digests(), strict=True))


def test_settings_come_as_text_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crossrag.toml").write_text("[ray]\nreranker_cpus = 2\n", encoding="utf-8")
    monkeypatch.setenv("CROSSRAG_RAY__RERANKER_REPLICAS", "2")

    def options(args: dict[str, str]) -> Any:
        return serve.reranker(args)._bound_deployment

    made = options({"settings": "[ray]\nreranker_cpus = 3\nreranker_replicas = 1\n"})
    assert made.ray_actor_options["num_cpus"] == 3
    config = made._deployment_config.autoscaling_config
    assert config.min_replicas == 2, "the environment wins, as over a file"
    assert options({"config": "crossrag.toml"}).ray_actor_options["num_cpus"] == 2
    with pytest.raises(ConfigError, match="The text of the settings is not valid TOML"):
        serve.reranker({"settings": "[ray"})
    with pytest.raises(ConfigError, match="both given"):
        serve.reranker({"settings": "", "config": "crossrag.toml"})


def test_an_embedded_index_is_served_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def machine(number: int) -> dict[str, Any]:
        own = {"CPU": 2.0, f"node:10.0.0.{number}": 1.0, "node:__internal_head__": 1.0}
        return {"NodeID": str(number), "Alive": True, "Resources": own}

    class Context:
        def get_node_id(self) -> str:
            return "2"

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [machine(1), machine(2)])
    monkeypatch.setattr(ray, "get_runtime_context", Context)
    made = serve.api_of(Settings(), here=True)
    assert made.application._bound_deployment.ray_actor_options["resources"] == {"node:10.0.0.2": 0.001}
    assert made.digest != serve.api_of(Settings()).digest
    on_qdrant = Settings(qdrant=QdrantSettings(url="http://q:6333"))
    assert serve.api_of(on_qdrant, here=True).digest == serve.api_of(on_qdrant).digest
    # A file of Serve's does not say where.
    with pytest.raises(ConfigError, match="on one machine, and the cluster has several"):
        serve.application({"settings": ""})
    assert serve.application({"settings": "[qdrant]\nurl = 'http://q:6333'\n"})
    monkeypatch.setattr(ray, "nodes", lambda: [machine(1)])
    assert serve.application({"settings": ""})


@pytest.mark.parametrize(
    ("state", "warm", "healthy"),
    [
        ("starting", False, True),
        ("ready", True, True),
        ("failing", True, True),  # the index: it comes back by itself
        ("failing", False, False),
        ("stopping", False, True),
    ],
)
def test_a_server_whose_models_failed_is_started_anew(state: str, warm: bool, healthy: bool) -> None:  # noqa: FBT001
    api = object.__new__(serve.Api)
    api.service = SimpleNamespace(state=state, warm=warm)  # type: ignore[assignment]
    if healthy:
        api.check_health()
    else:
        with pytest.raises(ModelError, match="log says which"):
            api.check_health()


def test_paths_hold_in_other_working_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()

    def of(folder: Path) -> Settings:
        """Every setting that is a path."""
        at = f"{folder}/" if folder.is_absolute() else ""
        return Settings(
            index=IndexSettings(path=folder / "index"),
            embedder=EmbedderSettings(model=f"onnx:{at}model"),
            reranking=RerankingSettings(model=f"progressive:{at}model", cache=folder / "scores.sqlite"),
            verification=VerificationSettings(model=f"onnx:{at}model"),
            context=ContextSettings(tokenizer=folder / "tokenizer.json"),
            server=ServerSettings(
                collections={"legal": folder / "legal"}, uploads=folder / "up", feedback=folder / "thumbs"
            ),
        )

    relative, absolute = of(Path()), of(tmp_path)
    assert serve.reranker_of(relative).digest == serve.reranker_of(absolute).digest
    assert serve.embedder_of(relative).digest == serve.embedder_of(absolute).digest
    assert serve.api_of(relative).digest == serve.api_of(absolute).digest


def test_the_least_is_not_more_than_the_most() -> None:
    with pytest.raises(ValueError, match="reranker_replicas 3 is more than reranker_max_replicas 2"):
        RaySettings(reranker_replicas=3)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--engine", "rya"], 2, "There is no engine 'rya'"),
        (["--engine", "ray", "--set", "ray.ingress_replicas=2"], 7, "An embedded index has one server"),
        (["--engine", "ray", "--host", "::"], 7, "there is no key"),
        (["--set", "ray.reranker_gpu=1"], 7, "Did you mean 'reranker_gpus'?"),
    ],
)
def test_what_cannot_be_is_said_before_a_cluster_is_started(
    arguments: list[str], code: int, says: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crossrag", "serve", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr

"""Settings -> three applications of Ray Serve: the reranker, the embedder, and the API in front of them.

Three, so that each is exchanged by itself: a new model comes beside the old one, which answers until the new
one does. The API is the server's own, over a `Rag` whose models are `serve_clients`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from crossrag import registry
from crossrag.config import Settings, load_settings
from crossrag.errors import ConfigError, ModelError
from crossrag.ray_settings import RaySettings
from crossrag.server.app import create_app
from crossrag.server.listening import check_closed
from crossrag.server.observing import log_requests
from crossrag.server.service import Service
from crossrag.server_settings import ServerSettings

from .cluster import device, everywhere
from .serve_clients import Replicas, ServedEmbedder, ServedReranker
from .serve_models import EmbedderReplica, Nobody, RerankerReplica

if TYPE_CHECKING:
    from fastapi import FastAPI

    from crossrag.registry import Kind

API, RERANKER, EMBEDDER = "crossrag", "crossrag-reranker", "crossrag-embedder"
"""Names of the applications."""


# --- builders, which Serve's config files name too: `import_path: crossrag.scale.serve:application`


def application(args: Mapping[str, Any]) -> Any:
    """The API.

    Args:
        args: `settings`, the text of a settings file; or `config`, the path of one on the machine that starts
            it, whose text is not seen to change. What else is there changes nothing but that the application
            is another one.

    Raises:
        ConfigError: The settings cannot be served; or they name an embedded index, and the cluster has
            several machines: nothing says on which of them it is.
    """
    settings = _settings(args)
    if settings.store != "qdrant" and len(_machines()) > 1:
        raise ConfigError(
            "An embedded index is on one machine, and the cluster has several",
            hint="Set qdrant.url to a Qdrant server, or use `crossrag serve --engine ray` where it is",
        )
    return api_of(settings).application


def reranker(args: Mapping[str, Any]) -> Any:
    """The reranker, arguments as for `application`; a file names it also where the settings want none."""
    settings = _settings(args)
    return nobody() if settings.reranking.model == "none" else reranker_of(settings).application


def embedder(args: Mapping[str, Any]) -> Any:
    """The embedder; arguments as for `application`."""
    return embedder_of(_settings(args)).application


# --- settings -> applications


@dataclass(frozen=True, slots=True)
class Made:
    """An application of Serve, and a digest of all that it was made of."""

    application: Any
    digest: str


class Api:
    """A server of the API, as `crossrag serve` is one.

    Args:
        settings: All of them.
        digest: Of what was deployed.
    """

    def __init__(self, settings: Settings, digest: str) -> None:
        from ray import serve

        # Not only what the settings say: others may have started Serve, or do it by a file of their own.
        check_closed(settings.server.model_copy(update={"host": listens_at()[0]}))
        # Ray keeps what a replica says on stderr among its logs.
        log_requests(settings.server)
        retries = settings.ray.retries
        # By name: where all three are deployed at once, they may come up in any order.
        handle = serve.get_deployment_handle(EmbedderReplica.__name__, app_name=EMBEDDER)
        embedding = Replicas(handle, "embedder", retries=retries)
        scoring = None
        if settings.reranking.model != "none":
            handle = serve.get_deployment_handle(RerankerReplica.__name__, app_name=RERANKER)
            scoring = ServedReranker(Replicas(handle, "reranker", retries=retries))
        self.service = Service(settings, embedder=ServedEmbedder(embedding), reranker=scoring)
        if scoring is not None:
            scoring.changed = self.service.models_changed
        self._digest = digest

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application with all its routes."""
        return create_app(self.service)

    def state(self) -> str:
        """Whether it can answer: starting, ready, failing or stopping."""
        return self.service.state

    def check_health(self) -> None:
        """Ray starts a replica anew whose models did not load: no request can be answered by it.

        One without its index stays: that comes back by itself, and `/readyz` says so until then.

        Raises:
            ModelError: The models cannot be used.
        """
        if self.service.state == "failing" and not self.service.warm:
            raise ModelError("A model cannot be used", hint="The replica's log says which and why")

    def digest(self) -> str:
        """Of what was deployed."""
        return self._digest


def api_of(settings: Settings, *, here: bool = False) -> Made:
    """The API as an application of Serve.

    Args:
        settings: All of them.
        here: Whether an embedded index is on this machine, where its server has to be then; this program must
            be connected to the cluster.

    Raises:
        ConfigError: Several servers are wanted of an embedded index, or it is open to others without a key.
    """
    from ray import serve

    limits, ray = settings.server, settings.ray
    check_closed(limits)
    if settings.store != "qdrant" and ray.ingress_replicas > 1:
        raise ConfigError(
            f"An embedded index has one server, and ray.ingress_replicas is {ray.ingress_replicas}",
            hint="Set qdrant.url to a Qdrant server, or ray.ingress_replicas to 1",
        )
    # Nothing of what the models' own applications are made of: another model does not start this anew.
    kind = settings.reranking.model.partition(":")[0]
    wanted = settings.reranking.model_copy(update={"model": kind, "threads": 0, "device": None})
    settings = _everywhere(settings.model_copy(update={"reranking": wanted}))
    own = _part(ray, "ingress", "retries")
    # Where Serve listens is not where this one of its applications does.
    server = settings.server.model_copy(update={"port": ServerSettings().port})
    settings = settings.model_copy(update={"ray": own, "server": server})
    # On another machine the same path is another index, most likely an empty one.
    place = _this_machine() if here and settings.store != "qdrant" else {}
    digest = _digest(settings, _model_files("grounders", settings.verification.model), *place)
    deployed = serve.deployment(
        name="Api",
        num_replicas=ray.ingress_replicas,
        # The server's own admission comes first, and says 429; this bounds what is behind it.
        max_ongoing_requests=1_024,
        max_queued_requests=1_024,
        backpressure_config={"status_code": 503, "retry_after_s": 2.0},
        ray_actor_options={"num_cpus": ray.ingress_cpus, "resources": place},
        graceful_shutdown_timeout_s=limits.grace_seconds,
        # Two cannot have an embedded index open: there the old one has to end first.
        max_surge_percent=100 if settings.store == "qdrant" else 0,
    )(serve.ingress()(Api))
    return Made(deployed.bind(settings, digest), digest)


def reranker_of(settings: Settings) -> Made:
    """The reranker as an application of Serve."""
    sections = ("rerank_http", "rerank_torch")
    return _model(RerankerReplica, "reranker", settings, section="reranking", also=sections)


def nobody() -> Any:
    """What stands for a reranker that is not wanted, so that Serve has all that its file names."""
    from ray import serve

    deployed = serve.deployment(name=Nobody.__name__, ray_actor_options={"num_cpus": 0})(Nobody)
    return deployed.bind()


def embedder_of(settings: Settings) -> Made:
    """The embedder as an application of Serve."""
    return _model(EmbedderReplica, "embedder", settings, section="embedder")


def _model(
    replica: type[RerankerReplica | EmbedderReplica],
    name: str,
    settings: Settings,
    *,
    section: str,
    also: Sequence[str] = (),
) -> Made:
    """A model as an application of Serve.

    Args:
        replica: What holds it.
        name: What its settings in `[ray]` begin with.
        settings: All of them.
        section: Where the model is named.
        also: Further sections that the replica needs.
    """
    from ray import serve

    kind: Kind = "rerankers" if name == "reranker" else "embedders"
    ray, limits, wanted = settings.ray, settings.server, getattr(settings, section)
    least, most, cpus, gpus = (
        getattr(ray, f"{name}_{what}") for what in ("replicas", "max_replicas", "cpus", "gpus")
    )
    # Only what it is made of, so that nothing else starts it anew; and no key that it does not need.
    model = type(wanted)(
        model=everywhere(wanted.model),
        threads=wanted.threads or max(1, int(cpus)),
        device=device(kind, wanted.model, wanted.device, gpus=gpus),
    )
    given: dict[str, Any] = {one: getattr(settings, one) for one in also}
    given |= {
        section: model,
        "server": ServerSettings(batch_tokens=limits.batch_tokens, grace_seconds=limits.grace_seconds),
        "ray": _part(ray, name, "max"),
    }
    own = Settings(**given)
    deployed = serve.deployment(
        name=replica.__name__,
        autoscaling_config={
            "min_replicas": least,
            "initial_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": max(1.0, ray.max_ongoing_requests / 4),
        },
        max_ongoing_requests=ray.max_ongoing_requests,
        max_queued_requests=ray.max_queued_requests,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        graceful_shutdown_timeout_s=limits.grace_seconds,
        # A new model is loaded beside the old one, which answers until then.
        max_surge_percent=100,
    )(replica)
    digest = _digest(own, _model_files(kind, model.model))
    return Made(deployed.bind(own, digest), digest)


def listens_at() -> tuple[str, int]:
    """Host and port of Serve on the cluster that this program is connected to, whoever started it."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None  # noqa: S101 - it raises where Serve is not there
    there = client.http_config
    return there.host or "127.0.0.1", there.port


def _settings(args: Mapping[str, Any]) -> Settings:
    file, text = args.get("config"), args.get("settings")
    if file is not None and text is not None:
        raise ConfigError(
            "`config` and `settings` are both given", hint="Write the path of a file, or its text"
        )
    return load_settings(
        config_file=None if file is None else Path(str(file)), config_text=None if text is None else str(text)
    ).settings


def _machines() -> list[dict[str, Any]]:
    """Those of the cluster that this program is connected to; none where it is connected to no cluster."""
    import ray

    if not ray.is_initialized():
        return []
    return [one for one in ray.nodes() if one["Alive"]]  # type: ignore[no-untyped-call]


def _this_machine() -> dict[str, float]:
    """What only this machine of the cluster has, and so little of it that everybody may have some."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    [own] = [one["Resources"] for one in _machines() if one["NodeID"] == here]
    return {name: 0.001 for name in own if name.startswith("node:") and "__" not in name}


def _part(ray: RaySettings, *beginnings: str) -> RaySettings:
    """Only what one application is made of, so that the rest changes nothing of it."""
    return RaySettings(**{name: value for name, value in ray if name.startswith(beginnings)})


def _everywhere(settings: Settings) -> Settings:
    """With whole paths: a replica may have another working directory."""
    held = {}
    for section, values in settings:
        whole = {name: _whole(value) for name, value in values}
        if section in {"embedder", "verification"}:
            whole["model"] = everywhere(values.model)
        # Only what differs, since what was said is told from what was not.
        changed = {name: value for name, value in whole.items() if value != getattr(values, name)}
        held[section] = values.model_copy(update=changed)
    return settings.model_copy(update=held)


def _whole(value: object) -> object:
    if isinstance(value, Path):
        return value.expanduser().absolute()
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    return value


def _model_files(kind: Kind, name: str) -> str:
    """A digest of a model's files: others under the same path are another model. Of nothing without a folder.

    It costs the reading of the files, which each replica does too. What a backend calls its fingerprint would
    cost the loading of the model.
    """
    digest = hashlib.sha256()
    folder = registry.folder(kind, name)
    for file in sorted(folder.iterdir()) if folder is not None else ():
        if file.is_file():
            with file.open("rb") as opened:
                digest.update(file.name.encode() + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _digest(settings: Settings, *further: str) -> str:
    """Of every value, secrets too: another key is another application; and of what is said beside them."""

    def plain(value: object) -> str:
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    text = json.dumps([settings.model_dump(), *further], default=plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

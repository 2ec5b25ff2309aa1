"""Settings -> three applications of Ray Serve: the reranker, the embedder, and the API in front of them.

Three, so that each is exchanged by itself: a new model comes beside the old one, which answers until the new
one does. The API is the server's own, over a `Rag` whose models are `serve_clients`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from crossrag.config import EmbedderSettings, RerankingSettings, Settings, load_settings
from crossrag.errors import ConfigError
from crossrag.ray_settings import RaySettings
from crossrag.server.app import create_app
from crossrag.server.listening import check_closed
from crossrag.server.service import Service
from crossrag.server_settings import ServerSettings

from .serve_clients import Replicas, ServedEmbedder, ServedReranker
from .serve_models import EmbedderReplica, RerankerReplica

if TYPE_CHECKING:
    from fastapi import FastAPI

API, RERANKER, EMBEDDER = "crossrag", "crossrag-reranker", "crossrag-embedder"
"""Names of the applications."""


# --- builders, which Serve's config files name too: `import_path: crossrag.scale.serve:application`


def application(args: Mapping[str, Any]) -> Any:
    """The API.

    Args:
        args: `config`, the path of a settings file on the machine that starts it. What else is there changes
            nothing but that the application is another one.
    """
    return api_of(_settings(args)).application


def reranker(args: Mapping[str, Any]) -> Any:
    """The reranker; arguments as for `application`."""
    return reranker_of(_settings(args)).application


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

    def digest(self) -> str:
        """Of what was deployed."""
        return self._digest


def api_of(settings: Settings) -> Made:
    """The API as an application of Serve.

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
    index = settings.index.model_copy(update={"path": settings.index.path.expanduser().absolute()})
    own = _part(ray, "ingress", "retries")
    settings = settings.model_copy(update={"index": index, "reranking": wanted, "ray": own})
    digest = _digest(settings)
    deployed = serve.deployment(
        name="Api",
        num_replicas=ray.ingress_replicas,
        # The server's own admission comes first, and says 429; this bounds what is behind it.
        max_ongoing_requests=1_024,
        max_queued_requests=1_024,
        backpressure_config={"status_code": 503, "retry_after_s": 2.0},
        ray_actor_options={"num_cpus": ray.ingress_cpus},
        graceful_shutdown_timeout_s=limits.grace_seconds,
        # Two cannot have an embedded index open: there the old one has to end first.
        max_surge_percent=100 if settings.store == "qdrant" else 0,
    )(serve.ingress()(Api))
    return Made(deployed.bind(settings, digest), digest)


def reranker_of(settings: Settings) -> Made:
    """The reranker as an application of Serve."""
    ray, wanted = settings.ray, settings.reranking
    given = Settings(
        reranking=RerankingSettings(
            model=_absolute(wanted.model),
            threads=wanted.threads or max(1, int(ray.reranker_cpus)),
            device=wanted.device or ("cuda" if ray.reranker_gpus else None),
        ),
        rerank_http=settings.rerank_http,
        rerank_torch=settings.rerank_torch,
        server=ServerSettings(
            batch_tokens=settings.server.batch_tokens, grace_seconds=settings.server.grace_seconds
        ),
        ray=_part(ray, "reranker", "max"),
    )
    return _model(
        RerankerReplica,
        given,
        replicas=(ray.reranker_replicas, ray.reranker_max_replicas),
        resources={"num_cpus": ray.reranker_cpus, "num_gpus": ray.reranker_gpus},
    )


def embedder_of(settings: Settings) -> Made:
    """The embedder as an application of Serve."""
    ray, wanted = settings.ray, settings.embedder
    given = Settings(
        embedder=EmbedderSettings(
            model=_absolute(wanted.model),
            threads=wanted.threads or max(1, int(ray.embedder_cpus)),
            device=wanted.device or ("cuda" if ray.embedder_gpus else None),
        ),
        server=ServerSettings(
            batch_tokens=settings.server.batch_tokens, grace_seconds=settings.server.grace_seconds
        ),
        ray=_part(ray, "embedder", "max"),
    )
    return _model(
        EmbedderReplica,
        given,
        replicas=(ray.embedder_replicas, ray.embedder_max_replicas),
        resources={"num_cpus": ray.embedder_cpus, "num_gpus": ray.embedder_gpus},
    )


def _model(
    replica: type[RerankerReplica | EmbedderReplica],
    settings: Settings,
    *,
    replicas: tuple[int, int],
    resources: Mapping[str, float],
) -> Made:
    from ray import serve

    least, most = replicas
    limits = settings.ray
    deployed = serve.deployment(
        name=replica.__name__,
        autoscaling_config={
            "min_replicas": least,
            "initial_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": max(1.0, limits.max_ongoing_requests / 4),
        },
        max_ongoing_requests=limits.max_ongoing_requests,
        max_queued_requests=limits.max_queued_requests,
        ray_actor_options=dict(resources),
        graceful_shutdown_timeout_s=settings.server.grace_seconds,
        # A new model is loaded beside the old one, which answers until then.
        max_surge_percent=100,
    )(replica)
    digest = _digest(settings)
    return Made(deployed.bind(settings, digest), digest)


def _settings(args: Mapping[str, Any]) -> Settings:
    file = args.get("config")
    return load_settings(config_file=None if file is None else Path(str(file))).settings


def _part(ray: RaySettings, *beginnings: str) -> RaySettings:
    """Only what one application is made of, so that the rest changes nothing of it."""
    return RaySettings(**{name: value for name, value in ray if name.startswith(beginnings)})


def _absolute(name: str) -> str:
    """A replica may have another working directory."""
    backend, colon, model = name.partition(":")
    folder = Path(model).expanduser()
    return f"{backend}:{folder.absolute()}" if colon and folder.is_dir() else name


def _digest(settings: Settings) -> str:
    """Of every value, secrets too: another key is another application."""

    def plain(value: object) -> str:
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    text = json.dumps(settings.model_dump(), default=plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""The applications of `serve` on a cluster of Ray: connected to or started, deployed, exchanged, ended."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from crossrag.errors import ModelError

from .serve import API, EMBEDDER, RERANKER, api_of, embedder_of, reranker_of

if TYPE_CHECKING:
    from crossrag.config import Settings

_STARTING = 300.0
"""Seconds in which the API must be ready."""


def deploy(settings: Settings) -> list[str]:
    """Put the applications on the cluster that this program is connected to, those that are not there yet.

    Models first, so that no API is without them. Returns the names of what was deployed.

    Raises:
        ConfigError: The settings cannot be served.
        ModelError: An application does not come up.
    """
    from ray import serve

    models = {EMBEDDER: embedder_of(settings)}
    if settings.reranking.model != "none":
        models[RERANKER] = reranker_of(settings)
    done = []
    for stage in (models, {API: api_of(settings)}):
        new = {name: made for name, made in stage.items() if _running(name) != made.digest}
        targets = [
            serve.RunTarget(made.application, name=name, route_prefix="/" if name == API else None)
            for name, made in new.items()
        ]
        try:
            if targets:
                serve.run_many(targets)
        except RuntimeError as error:
            raise ModelError(
                f"{' or '.join(new)} does not come up: {str(error)[:300]}", hint="Its replicas' logs say why"
            ) from None
        done += list(new)
    return done


def serve(settings: Settings, *, listening: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; on a cluster that is there already, deploy and return.

    Args:
        settings: All of them.
        listening: Called with the address when it is ready.

    Raises:
        ConfigError: It is open to others without a key, or an embedded index is to have several servers.
        ModelError: It does not become ready.
    """
    api_of(settings)  # what cannot be is said before a cluster is started
    port = settings.server.port or _free_port(settings.server.host)
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        connect(settings, port)
        # Not sooner: Ray puts a handler of its own in the place of what is there.
        for number in before:
            signal.signal(number, lambda *_: stop.set())
        deploy(settings)
        host = settings.server.host
        shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not listened at
        address = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
        if settings.ray.address is None:
            _wait_until_ready(stop)
        if not stop.is_set():
            listening(address)
        if settings.ray.address is None:
            stop.wait()
    finally:
        disconnect(keep=settings.ray.address is not None)
        for number, handler in before.items():
            signal.signal(number, handler)


def connect(settings: Settings, port: int) -> None:
    """Connect to the cluster of the settings, or start one here; and Serve on it."""
    # It tells its makers of every cluster unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve

    given = settings.ray
    if given.address is None:
        ray.init(
            num_cpus=_places(settings),
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
        )
    else:
        ray.init(address=given.address, configure_logging=False, log_to_driver=False)
    serve.start(http_options={"host": settings.server.host, "port": port, "keep_alive_timeout_s": 5})


def disconnect(*, keep: bool) -> None:
    """Let go of the cluster; what runs on one that was there before is kept."""
    import ray

    if ray.is_initialized():
        if not keep:
            from ray import serve

            serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def _places(settings: Settings) -> int:
    """CPUs that Ray counts here: enough for every replica and the one that is to replace it.

    They are places, no cores: with as many as there are cores, a small machine could not exchange a model.
    """
    ray = settings.ray
    needed = (
        ray.ingress_replicas * ray.ingress_cpus
        + ray.reranker_max_replicas * ray.reranker_cpus
        + ray.embedder_max_replicas * ray.embedder_cpus
    )
    return max(os.cpu_count() or 1, int(2 * needed) + 1)


def _running(name: str) -> str | None:
    """The digest of what runs under this name; None where nothing does."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    status = serve.status().applications.get(name)
    if status is None or status.status != "RUNNING":
        return None
    try:
        return str(serve.get_app_handle(name).digest.remote().result(timeout_s=30))
    except (RayError, RayServeException, TimeoutError):
        return None


def _wait_until_ready(stop: threading.Event) -> None:
    from ray import serve

    until = time.monotonic() + _STARTING
    handle = serve.get_app_handle(API)
    while not stop.is_set():
        state = str(handle.state.remote().result(timeout_s=_STARTING))
        if state == "ready":
            return
        if state == "failing" or time.monotonic() > until:
            raise ModelError(
                f"The API is {state}",
                hint="A model or the index cannot be used: `crossrag doctor` says which",
            )
        stop.wait(0.2)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.bind((host, 0))
        return int(taken.getsockname()[1])

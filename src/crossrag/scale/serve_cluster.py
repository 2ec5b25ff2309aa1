"""The applications of `serve` on a cluster of Ray: Serve started, applications deployed, exchanged, ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossrag.errors import ConfigError, ModelError
from crossrag.server.listening import bound, check_closed

from .cluster import Need, connected
from .serve import API, EMBEDDER, RERANKER, api_of, embedder_of, listens_at, reranker_of

if TYPE_CHECKING:
    from crossrag.config import Settings

_STARTING = 300.0
"""Seconds in which what is deployed must run, and the API must be ready."""
_WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - compared, not listened at


@dataclass(frozen=True, slots=True)
class Place:
    """Where Serve is."""

    own: bool
    """Whether the cluster was started for it, and ends with it."""
    url: str
    """Of the API."""


def serve(settings: Settings, *, listening: Callable[[Place], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; on a cluster that is there already, deploy and return.

    Args:
        settings: All of them.
        listening: Called when the API is ready.

    Raises:
        ConfigError: It is open to others without a key, an embedded index is to have several servers, or
            there is no cluster, or none that is large enough.
        UsageError: The port is taken.
        ModelError: It does not become ready.
    """
    api_of(settings)  # what cannot be is said before a cluster is started
    stop = threading.Event()
    with started(settings) as place, _set_by_signals(stop, wanted=place.own):
        deploy(settings, stop=stop)
        _wait_until_ready(stop)
        if not stop.is_set():
            listening(place)
        if place.own:
            stop.wait()


@contextmanager
def started(settings: Settings) -> Iterator[Place]:
    """Serve on the cluster of the settings until the block ends; on one that was there before it stays.

    Raises:
        ConfigError: There is no such cluster, it is too small, or Serve does not start there; or Serve is
            there already and listens where others may come without a key.
        UsageError: The port of a cluster of its own is taken.
    """
    limits = settings.server
    port = limits.port
    if settings.ray.address is None:
        with bound(limits) as taken:
            port = taken.getsockname()[1]
    elif not port:
        raise ConfigError("The machines of a cluster listen at one port", hint="Set server.port to one")
    with connected(settings.ray, _need(settings), places=_places(settings)) as own:
        from ray import serve
        from ray.exceptions import RayError

        try:
            serve.start(http_options={"host": limits.host, "port": port, "keep_alive_timeout_s": 5})
        except (RayError, RuntimeError, TimeoutError) as error:
            raise ConfigError(
                f"Serve does not listen at {limits.host}, port {port}: {_line(error)}",
                hint="Choose another server.port, or see Ray's logs",
            ) from None
        host, port = listens_at()
        try:
            check_closed(limits.model_copy(update={"host": host}))
            yield Place(own, _url(host, port, own=own))
        finally:
            if own:
                serve.shutdown()  # type: ignore[no-untyped-call]


def deploy(settings: Settings, *, stop: threading.Event | None = None) -> list[str]:
    """Put the applications on the cluster that this program is connected to, those that are not there yet.

    Models first, so that no API is without them. Returns the names of what was deployed.

    Args:
        settings: All of them.
        stop: When it is set, nothing further is waited for.

    Raises:
        ConfigError: The settings cannot be served.
        ModelError: An application does not come up.
    """
    from ray import serve

    stop = stop or threading.Event()
    models = {EMBEDDER: embedder_of(settings)}
    if settings.reranking.model != "none":
        models[RERANKER] = reranker_of(settings)
    done: list[str] = []
    for stage in (models, {API: api_of(settings, here=True)}):
        new = {name: made for name, made in stage.items() if _running(name) != made.digest}
        targets = [
            serve.RunTarget(made.application, name=name, route_prefix="/" if name == API else None)
            for name, made in new.items()
        ]
        if targets and not stop.is_set():
            # Not Ray's own waiting, which has no end.
            serve.run_many(targets, wait_for_applications_running=False)
            _wait_until_running(new, stop)
            done += list(new)
    return done


def _need(settings: Settings) -> Need:
    """Of the least replicas."""
    ray = settings.ray
    rerankers = ray.reranker_replicas if settings.reranking.model != "none" else 0
    return Need(
        whose="The API and its models",
        cpus=ray.ingress_replicas * ray.ingress_cpus
        + rerankers * ray.reranker_cpus
        + ray.embedder_replicas * ray.embedder_cpus,
        gpus=rerankers * ray.reranker_gpus + ray.embedder_replicas * ray.embedder_gpus,
        hint="Lower the CPUs, GPUs or replicas of ray.ingress_, ray.reranker_ and ray.embedder_",
    )


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


def _wait_until_running(names: Collection[str], stop: threading.Event) -> None:
    from ray import serve

    until = time.monotonic() + _STARTING
    while not stop.is_set():
        there = serve.status().applications
        waiting = [name for name in names if name not in there or there[name].status != "RUNNING"]
        if not waiting:
            return
        late = time.monotonic() > until
        for name in waiting:
            one = there.get(name)
            if late or (one and one.status == "DEPLOY_FAILED"):
                said = [one.message, *(part.message for part in one.deployments.values())] if one else []
                why = " ".join(filter(None, said))[-500:] or "nobody says why"
                raise ModelError(
                    f"{name} does not come up: {why}",
                    hint="Its replicas' logs say more; `serve status` shows what it waits for",
                )
        stop.wait(0.2)


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


def _url(host: str, port: int, *, own: bool) -> str:
    """What to call to get there; of a cluster of several machines, the head."""
    import ray

    if host in _WILDCARDS:
        host = "127.0.0.1" if own else ray.get_runtime_context().gcs_address.rpartition(":")[0].strip("[]")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _line(error: Exception) -> str:
    """The last line, where Ray has what happened in a worker."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


@contextmanager
def _set_by_signals(stop: threading.Event, *, wanted: bool) -> Iterator[None]:
    """SIGTERM and Ctrl-C set `stop` until the block ends; a second Ctrl-C is an ordinary one.

    To be entered when Ray is connected, which has a handler of its own.
    """
    if not wanted:
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ends(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in before:
        signal.signal(number, ends)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

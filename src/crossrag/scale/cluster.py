"""A cluster of Ray for as long as a block lasts: the one that the settings name, or one of its own, here.

The only place that connects to Ray. `ray.address` alone decides; of the environment, `RAY_ADDRESS` counts
where that says `auto`, and nowhere else.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag import registry
from crossrag.errors import ConfigError

if TYPE_CHECKING:
    from crossrag.ray_settings import RaySettings

_LOG = logging.getLogger(__name__)
_TALKATIVE = ("ray.data._internal.progress", "ray._private.authentication.authentication_token_setup")
"""Loggers of Ray that warn of what is as it should be."""
_NO_CLUSTER = (
    "Start one with `ray start --head`, or name another by ray.address; one that has a token wants "
    "RAY_AUTH_MODE=token here"
)
_ANSWER_SECONDS = 10.0
"""In which a cluster must take a connection. Ray itself tries for minutes, and does not say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What has to have its place in a cluster at once, or the work would wait for ever."""

    whose: str
    """The subject of a sentence, such as `Embedders and one reader`."""
    cpus: float
    gpus: float = 0.0
    hint: str
    """Which settings make it less."""


def everywhere(name: str) -> str:
    """`backend:folder` with the folder's whole path: workers may have another working directory."""
    backend, colon, model = name.partition(":")
    folder = Path(model).expanduser()
    return f"{backend}:{folder.absolute()}" if colon and folder.is_dir() else name


def device(kind: registry.Kind, name: str, wanted: str | None, *, gpus: float) -> str | None:
    """Where a worker with a share of a GPU runs this backend; None lets the backend choose."""
    known = registry.BACKENDS[kind].get(name.partition(":")[0])
    return wanted or ("cuda" if gpus and known is not None and known.device else None)


@contextmanager
def connected(ray: RaySettings, need: Need | None = None, *, places: int | None = None) -> Iterator[bool]:
    """A driver on a cluster until the block ends; yields whether the cluster is its own, and ends with it.

    One of its own lets in who has the token that Ray keeps in the user's home. A cluster that this process is
    connected to already is used and left as it is.

    Args:
        ray: Which cluster, and how large one of its own is.
        need: What must fit. A cluster that is there may grow, so there it is a warning.
        places: CPUs that Ray counts in one of its own, if `ray.num_cpus` does not say; None for all cores.

    Raises:
        ConfigError: There is no such cluster, or one of its own cannot be started or is too small.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no word to anybody
    with warnings.catch_warnings(), _sigterm_kept():
        # Ray reads settings of its own that it has deprecated.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
        import ray as library

        found = library.is_initialized()
        if not found:
            _init(library, ray, places)
        own = not found and ray.address is None
        try:
            if need is not None:
                _check_room(library, need, own=own)
            yield own
        finally:
            if not found:
                library.shutdown()


def _init(library: Any, ray: RaySettings, places: int | None) -> None:
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    # What workers print, Ray would put on standard output, which is for data.
    said: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if ray.address is None:
        where, hint = "here", "See ray.num_cpus, ray.object_store_memory and ray.spill"
        said |= {
            # Named, since Ray would otherwise follow RAY_ADDRESS to a cluster that the settings do not name.
            "address": "local",
            "num_cpus": ray.num_cpus or places,
            "object_store_memory": ray.object_store_memory,
            "object_spilling_directory": str(ray.spill.expanduser().absolute()) if ray.spill else None,
            "include_dashboard": False,
        }
        if os.environ.get("RAY_ADDRESS"):
            _LOG.warning(
                "RAY_ADDRESS is not looked at; --set ray.address=auto uses the cluster that it names"
            )
    else:
        where, hint = ray.address, _NO_CLUSTER
    try:
        if ray.address is not None:
            where = _address(ray.address)
            _check_answers(where)
            # As it was written: to the one that `auto` finds on this machine, Ray shows its token by itself.
            said["address"] = ray.address
        library.init(**said)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - Ray raises bare ones, such as when it does not start in time
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if ray.address is None and ".ray" in first:
            hint = (
                "Ray keeps a token in ~/.ray; without a home, export RAY_AUTH_TOKEN=$(openssl rand -hex 32)"
            )
        problem = "Ray does not start" if ray.address is None else "There is no Ray cluster at"
        raise ConfigError(f"{problem} {where}: {first[:300].rstrip('.')}", hint=hint) from None


def _address(wanted: str) -> str:
    """`HOST:PORT` of a cluster that is there. `auto` is RAY_ADDRESS, or else the one of this machine.

    Raises:
        ConfigError: It is the address of another door.
        OSError: There is none on this machine.
    """
    from ray._private.services import canonicalize_bootstrap_address

    named = os.environ.get("RAY_ADDRESS") or wanted if wanted == "auto" else wanted
    try:
        found = None if "://" in named else canonicalize_bootstrap_address(named)
    except ConnectionError:
        raise OSError("none runs on this machine, and RAY_ADDRESS names no other") from None
    if found is None:
        raise ConfigError(
            f"{named!r} is no address of a Ray cluster",
            hint="Write ray.address=HOST:6379, as `ray start` prints it, or auto, or nothing for one here",
        )
    return found


def _check_answers(address: str) -> None:
    """Raises OSError where nothing listens."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()


def _check_room(library: Any, need: Need, *, own: bool) -> None:
    there = library.cluster_resources()
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    if need.cpus <= cpus and need.gpus <= gpus:
        return
    wanted = f"{need.cpus:g} CPUs" + (f" and {need.gpus:g} GPUs" if need.gpus else "")
    has = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if need.gpus else "")
    if own:
        more = ", or raise ray.num_cpus" if need.cpus > cpus else ""
        raise ConfigError(f"{need.whose} take {wanted}, and the cluster has {has}", hint=need.hint + more)
    _LOG.warning(
        "%s take %s, and the cluster has %s: they wait until it has grown. %s",
        need.whose,
        wanted,
        has,
        need.hint,
    )


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray puts a handler of its own in the place of the caller's, and leaves it there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)

"""The one way to a cluster: which one, how large one of its own is, and what is said when there is none."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossrag.config import RerankingSettings, Settings
from crossrag.errors import ConfigError, ModelError, UsageError
from crossrag.ray_settings import RaySettings
from crossrag.scale.cluster import Need, connected
from crossrag.server_settings import ServerSettings

if find_spec("ray") is None:
    pytest.skip("NOT TESTED: clusters of Ray; pip install 'crossrag[ray]'", allow_module_level=True)

with warnings.catch_warnings():
    # Ray's own use of pydantic.
    warnings.simplefilter("ignore")
    import ray
    from ray import serve

from crossrag.scale import serve_cluster

NEED = Need(whose="Two models", cpus=4, hint="Lower ray.models")


class Library:
    """What is asked of Ray, which is never started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = False
        self.said: dict[str, Any] = {}
        self.resources = {"CPU": 4.0}
        for name in ("init", "is_initialized", "shutdown", "cluster_resources"):
            monkeypatch.setattr(ray, name, getattr(self, name))

    def init(self, **said: Any) -> None:
        self.said, self.running = said, True
        signal.signal(signal.SIGTERM, lambda *_: None)

    def is_initialized(self) -> bool:
        return self.running

    def shutdown(self) -> None:
        self.running = False

    def cluster_resources(self) -> dict[str, float]:
        return self.resources


@pytest.fixture(autouse=True)
def _telling(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which Ray would tell its makers; the loopback stays the loopback."""
    from ray._private import services

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "resolve_ip_for_localhost", lambda host: host)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    return Library(monkeypatch)


@pytest.fixture
def closed() -> str:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


# --- which one


def test_one_of_its_own_is_as_the_settings_say(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = RaySettings(num_cpus=4, object_store_memory=100_000_000, spill=Path("spill"))
    before = signal.getsignal(signal.SIGTERM)
    with connected(given, NEED, places=9) as own:
        assert own
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert library.said["address"] == "local"
        assert library.said["num_cpus"] == 4
        assert library.said["object_store_memory"] == 100_000_000
        assert library.said["object_spilling_directory"] == str(tmp_path / "spill")
        assert library.said["include_dashboard"] is False
    assert not library.running
    assert signal.getsignal(signal.SIGTERM) == before
    with connected(RaySettings(), NEED, places=9):
        assert library.said["num_cpus"] == 9


def test_the_environment_names_a_cluster_only_for_auto(
    library: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        there = f"127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", there)
        with connected(RaySettings()) as own:
            assert own
            assert library.said["address"] == "local"
        assert "ray.address=auto" in caplog.text
        caplog.clear()
        with connected(RaySettings(address="auto")) as own:
            assert not own
            assert library.said["address"] == "auto"
            assert "num_cpus" not in library.said
            assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert caplog.text == ""


def test_what_is_connected_already_is_used_and_left(library: Library) -> None:
    library.running = True
    with connected(RaySettings(num_cpus=8)) as own:
        assert not own
    assert library.running
    assert library.said == {}


# --- there is none


def test_nobody_waits_for_a_cluster_that_does_not_answer(
    closed: str, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, environ in ((closed, ""), ("auto", closed)):
        monkeypatch.setenv("RAY_ADDRESS", environ)
        with pytest.raises(ConfigError, match=r"no Ray cluster at .*refused.*ray start --head") as refused:
            connected(RaySettings(address=address)).__enter__()
        assert closed in str(refused.value)
    assert not library.running


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ray://head:10001", r"'ray://head:10001' is no address of a Ray cluster.*HOST:6379"),
        ("local", "'local' is no address of a Ray cluster"),
        ("nonsense", "There is no Ray cluster at nonsense: Invalid address"),
    ],
)
def test_other_addresses_are_refused(address: str, says: str, library: Library) -> None:
    with pytest.raises(ConfigError, match=says):
        connected(RaySettings(address=address)).__enter__()
    assert not library.running


def test_auto_without_any_cluster_says_so(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    with pytest.raises(ConfigError, match="at auto: none runs on this machine"):
        connected(RaySettings(address="auto")).__enter__()
    assert not library.running


@pytest.mark.parametrize(
    "error", [FileNotFoundError("No such file; timed out\nand more"), Exception("The node timed out.")]
)
def test_what_keeps_one_of_its_own_from_starting_is_told(
    error: Exception, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(ConfigError, match=r"Ray does not start here: .*timed out\. See .*ray\.spill"):
        connected(RaySettings(spill=Path("/proc/spill"))).__enter__()
    assert not library.running


# --- it is too small


@pytest.mark.parametrize(
    ("need", "says"),
    [
        (
            Need(whose="Two models", cpus=5, hint="Lower a"),
            r"Two models take 5 CPUs, .* has 4 CPUs\. .*num_cpus",
        ),
        (
            Need(whose="Two models", cpus=1, gpus=0.5, hint="Lower a"),
            r"0\.5 GPUs, .* 4 CPUs and 0 GPUs\. Lower a\.$",
        ),
    ],
)
def test_one_that_is_too_small_is_refused_and_one_that_may_grow_is_warned_of(
    need: Need, says: str, library: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=says):
        connected(RaySettings(), need).__enter__()
    assert not library.running
    monkeypatch.setattr("crossrag.scale.cluster._check_answers", lambda _: None)
    with caplog.at_level(logging.WARNING), connected(RaySettings(address="10.0.0.1:6379"), need) as own:
        assert not own
    assert "they wait until it has grown" in caplog.text


def test_served_models_need_their_least_replicas(library: Library) -> None:
    models = RaySettings(reranker_replicas=4, reranker_max_replicas=4, num_cpus=4)
    with pytest.raises(ConfigError, match=r"The API and its models take 5 CPUs.*ray\.num_cpus"):
        serve_cluster.started(Settings(ray=models, server=ServerSettings(port=0))).__enter__()
    assert library.said["num_cpus"] == 4
    assert not library.running
    none = Settings(reranking=RerankingSettings(model="none"), ray=models)
    assert serve_cluster._need(none).cpus == 1


# --- where it listens


def test_a_port_that_is_taken_is_said_before_anything_starts(library: Library) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}"):
            serve_cluster.started(Settings(server=ServerSettings(port=port))).__enter__()
    with pytest.raises(ConfigError, match=r"server\.port"):
        serve_cluster.started(
            Settings(server=ServerSettings(port=0), ray=RaySettings(address="h:6379"))
        ).__enter__()
    assert not library.running


# --- what is deployed does not come up


@pytest.mark.parametrize(
    ("applications", "seconds", "says"),
    [
        ({"reranker": ("DEPLOY_FAILED", "ConfigError: no such model")}, 60, "no such model"),
        (
            {"reranker": ("DEPLOYING", "1 replica waits for 4 CPUs")},
            0,
            "reranker .*waits for 4 CPUs.*serve status",
        ),
        ({"embedder": ("RUNNING", "")}, 0, "reranker does not come up: nobody says why"),
    ],
)
def test_what_does_not_come_up_is_told_and_not_waited_for_without_end(
    applications: dict[str, tuple[str, str]], seconds: float, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {
        name: SimpleNamespace(status=status, message="", deployments={"it": SimpleNamespace(message=message)})
        for name, (status, message) in applications.items()
    }
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications=there))
    monkeypatch.setattr(serve_cluster, "_STARTING", seconds)
    with pytest.raises(ModelError, match=says):
        serve_cluster._wait_until_running(["reranker"], threading.Event())


def test_whoever_is_told_to_stop_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "status", lambda: pytest.fail("asked"))
    stop = threading.Event()
    stop.set()
    serve_cluster._wait_until_running(["reranker"], stop)


def test_ctrl_c_ends_in_order_and_a_second_one_at_once() -> None:
    stop, before = threading.Event(), signal.getsignal(signal.SIGINT)
    with serve_cluster._set_by_signals(stop, wanted=True):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before

"""A program that has `serve` on a Ray of its own, and does what it reads: lines of JSON, one answer each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

# The machine that tests may be busy.
os.environ |= {
    "RAY_worker_niceness": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}

from crossrag.config import Settings, load_settings
from crossrag.scale import serve_cluster


def settings_of(arguments: dict[str, Any]) -> Settings:
    return load_settings(arguments, environ={}).settings


def kill(application: str) -> str:
    """End one replica as a machine that fails does."""
    import ray

    named = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
    replicas = sorted(name for name in named if name.startswith(f"SERVE_REPLICA::{application}#"))
    ray.kill(ray.get_actor(replicas[0], namespace="serve"), no_restart=True)
    return str(replicas[0])


def replicas(application: str) -> int:
    """How many answer."""
    from ray import serve

    deployments = serve.status().applications[application].deployments.values()
    return sum(
        count for one in deployments for state, count in one.replica_states.items() if state == "RUNNING"
    )


def address(_: None) -> str:
    """Of the cluster."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def deployed(arguments: dict[str, Any]) -> list[str]:
    """What other settings deploy."""
    return serve_cluster.deploy(settings_of(arguments))


def main() -> None:
    settings = settings_of(json.loads(sys.stdin.readline()))
    with serve_cluster.started(settings) as place:
        assert place.own
        print(json.dumps(serve_cluster.deploy(settings)), flush=True)
        for line in sys.stdin:
            what, argument = json.loads(line)
            known: dict[str, Callable[..., Any]] = {
                "kill": kill,
                "replicas": replicas,
                "address": address,
                "deploy": deployed,
            }
            print(json.dumps(known[what](argument)), flush=True)


if __name__ == "__main__":
    main()

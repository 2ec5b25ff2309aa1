"""Run as a program: a cluster of two CPUs, or a driver on it that does what it reads, line by line."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from crossrag import CrossragError, Rag, indexing, maintenance
from crossrag.config import load_settings
from crossrag.manifest import Manifest
from crossrag.scale import ingest
from crossrag.scale.cluster import connected
from crossrag.scale.ingest import RayEngine
from crossrag.testing import HashedEmbedder


def cluster() -> None:
    """Until its standard input ends."""
    import ray

    ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False)
    print(json.dumps({"address": ray.get_runtime_context().gcs_address}), flush=True)
    sys.stdin.read()


def done(order: dict[str, Any]) -> dict[str, Any]:
    """Report and digest of one ingestion."""
    settings = load_settings(order["settings"]).settings
    given = HashedEmbedder(dimension=64) if order.get("given") else None
    with Rag(settings, embedder=given) as rag, bounded(order.get("in_flight")):
        engine = RayEngine(settings) if order.get("engine") == "ray" else None
        report = rag.ingest(order["docs"], engine=engine, fail_fast=bool(order.get("fail_fast")))
        verdict = maintenance.verify(rag.index, vectors=True)
    assert verdict.agrees, verdict.differences
    return {**asdict(report), "digest": verdict.digest}


@contextmanager
def bounded(in_flight: int | None) -> Iterator[None]:
    """So many bytes may be read and not embedded yet; readers note how far ahead they are."""
    if in_flight is None:
        yield
        return
    from ray.data import DataContext, ExecutionResources

    options = DataContext.get_current().execution_options
    limits = options.resource_limits
    options.resource_limits = ExecutionResources.for_limits(object_store_memory=in_flight)
    try:
        # By the name under which workers find it too.
        with patch.object(ingest, "read", import_module("slowly").noted):
            yield
    finally:
        options.resource_limits = limits


def die_after(flips: int) -> None:
    """As if somebody killed this process, when so many batches are the truth."""
    original, count = Manifest.flip, 0

    def flip(*arguments: Any, **named: Any) -> None:
        nonlocal count
        original(*arguments, **named)
        count += 1
        if count == flips:
            os.kill(os.getpid(), signal.SIGKILL)

    Manifest.flip = flip  # type: ignore[method-assign]


def drive(settings: dict[str, Any], flips: int) -> None:
    """One line of JSON for each that is read."""
    # Small batches, so that there is something between the first and the last.
    indexing._BATCH, indexing._UNSETTLED_BATCHES = 40, 1
    if flips:
        die_after(flips)
    out = sys.stdout
    with connected(load_settings(settings).settings.ray), redirect_stdout(sys.stderr):
        for line in sys.stdin:
            try:
                said = done(json.loads(line))
            except CrossragError as error:
                said = {"error": type(error).__name__, "message": str(error)}
            print(json.dumps(said, default=str), file=out, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "cluster":
        cluster()
    else:
        drive({"ray": {"address": sys.argv[1]}, "index": {"path": Path("unused")}}, int(sys.argv[2]))

"""The section `[ray]`: which cluster, and how much of it for what. Inert, as all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from .section import Section


class RaySettings(Section):
    """`--engine ray`. CPUs and GPUs are shares that Ray counts; a model of one CPU runs with one thread."""

    address: str | None = Field(
        None, description="a cluster, HOST:6379 or auto (RAY_ADDRESS, or here); none = one of its own, here"
    )
    num_cpus: int | None = Field(
        None, ge=2, description="CPUs of a cluster of its own; none = all cores, to serve also more"
    )
    object_store_memory: int | None = Field(
        None,
        ge=78_643_200,
        description="bytes for data in flight in a cluster of its own; none = Ray's default",
    )
    spill: Path | None = Field(
        None, description="folder for what does not fit there; none = in Ray's temporary folder"
    )
    ingest_embedders: int = Field(1, ge=1, le=1_024, description="processes that embed during an ingestion")
    ingest_cpus: float = Field(1.0, gt=0, description="of such a process")
    ingest_gpus: float = Field(0.0, ge=0, description="of such a process; 0.5 = two share one")
    ingress_replicas: int = Field(
        1, ge=1, le=256, description="servers of the API; an embedded index has one"
    )
    ingress_cpus: float = Field(0.5, gt=0, description="of a server of the API")
    reranker_replicas: int = Field(1, ge=1, le=1_024, description="least replicas of the reranker")
    reranker_max_replicas: int = Field(2, ge=1, le=1_024, description="most of them, as requests wait")
    reranker_cpus: float = Field(1.0, gt=0, description="of a replica")
    reranker_gpus: float = Field(0.0, ge=0, description="of a replica; 0.5 = two share one")
    embedder_replicas: int = Field(1, ge=1, le=1_024, description="least replicas of the embedder")
    embedder_max_replicas: int = Field(2, ge=1, le=1_024, description="most of them")
    embedder_cpus: float = Field(0.5, gt=0, description="of a replica")
    embedder_gpus: float = Field(0.0, ge=0, description="of a replica")
    max_ongoing_requests: int = Field(16, ge=1, description="requests that a replica works on at once")
    max_queued_requests: int = Field(
        64, ge=1, description="requests that wait for a replica before others get 503"
    )
    retries: int = Field(3, ge=0, le=20, description="further tries when the replica that scores is lost")

    @model_validator(mode="after")
    def _most_is_not_less_than_least(self) -> Self:
        for name in ("reranker", "embedder"):
            least, most = getattr(self, f"{name}_replicas"), getattr(self, f"{name}_max_replicas")
            if least > most:
                raise ValueError(f"{name}_replicas {least} is more than {name}_max_replicas {most}")
        return self

    @model_validator(mode="after")
    def _a_cluster_has_its_own(self) -> Self:
        given = [name for name in ("num_cpus", "object_store_memory", "spill") if getattr(self, name)]
        if self.address is not None and given:
            raise ValueError(f"{given[0]} is of a cluster of its own, and address names another one")
        return self

"""The section `[ray]`: which cluster, and how much of it for what. Inert, as all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from .section import Section


class RaySettings(Section):
    """`--engine ray`. CPUs and GPUs are shares that Ray counts; a model of one CPU runs with one thread."""

    address: str | None = Field(
        None, description="a cluster, such as auto or HOST:6379; none = one of its own, here"
    )
    num_cpus: int | None = Field(None, ge=2, description="CPUs of a cluster of its own; none = all cores")
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

    @model_validator(mode="after")
    def _a_cluster_has_its_own(self) -> Self:
        given = [name for name in ("num_cpus", "object_store_memory", "spill") if getattr(self, name)]
        if self.address is not None and given:
            raise ValueError(f"{given[0]} is of a cluster of its own, and address names another one")
        return self

"""The sections `[qdrant]` and `[adopt]`: which collection on which server, and how another's is read.

Inert, as all settings; knows nothing of Qdrant's client.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from .section import Section


class QdrantSettings(Section):
    """A Qdrant server, Qdrant Cloud or a cluster. What begins with `shard_number` shapes a new collection."""

    url: str | None = Field(None, description="such as http://127.0.0.1:6333; none = embedded")
    api_key: SecretStr | None = Field(None, description="key; none = QDRANT_API_KEY")
    collection: str = Field("crossrag", description="name of the collection, an alias")
    grpc: bool = Field(default=False, description="speak gRPC")
    grpc_port: int = Field(6334, ge=1, le=65_535, description="port of gRPC")
    timeout: float = Field(30.0, gt=0, description="seconds for one request")
    deadline: float = Field(120.0, gt=0, description="seconds after which nothing is tried again")
    read_consistency: Literal["one", "majority", "quorum", "all"] = Field(
        "one", description="copies that a read asks; more than one hide a copy that lags behind"
    )
    max_retries: int = Field(
        4, ge=0, le=20, description="further tries of a read; writes go on until the deadline"
    )
    shard_number: int | None = Field(None, ge=1, description="shards; none = one")
    replication_factor: int | None = Field(
        None, ge=1, description="copies of a shard; none = the server's default"
    )
    write_consistency_factor: int | None = Field(None, ge=1, description="copies that must have a write")
    tenant_shards: bool = Field(default=False, description="shards of its own for each tenant")
    quantization: Literal["none", "scalar", "binary"] = Field("none", description="of the dense vectors")
    on_disk: bool = Field(default=False, description="read vectors from disk")


class AdoptSettings(Section):
    """How a collection is read that something else made, for `index.store = adopted`; see `[qdrant]` too."""

    vector: str | None = Field(None, description="name of its dense vector; none = the only one")
    sparse: str | None = Field(None, description="name of a sparse vector made as sparse.model does; none")
    text: str = Field("page_content", description="key of the text")
    metadata: str = Field("metadata", description="key of the metadata; empty = the payload itself")

"""The section `[server]`: where it listens, who may do what, and how much of everything is enough.

Inert, as all settings; knows nothing of HTTP.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from .section import Section

Scope = Literal["read", "write", "admin"]
"""Ask and search; change documents too; see the server's figures (`/metrics`) too."""


class KeySettings(Section):
    """One who may call, as `crossrag key` prints it; the key itself is nowhere kept."""

    name: str = Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", description="who this is, for logs")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="digest of the key, in hex")
    scope: Scope = Field("read", description="read, write or admin")
    tenant: str = Field(
        "", pattern="^([a-z0-9][a-z0-9_-]{0,62})?$", description="whose documents; none = index.tenant"
    )


class ServerSettings(Section):
    """`crossrag serve`. Limits are for one request."""

    host: str = Field("127.0.0.1", description="address to listen at; others than loopback need a key")
    port: int = Field(8777, ge=0, le=65_535, description="port; 0 = any that is free")
    api_key: SecretStr | None = Field(None, description="a key that may do everything")
    keys: tuple[KeySettings, ...] = Field((), description="further keys, as `crossrag key` prints them")
    insecure_no_auth: bool = Field(default=False, description="listen beyond loopback without any key")
    allowed_hosts: tuple[str, ...] = Field((), description="names this server is called by, with commas")
    collections: dict[str, Path] = Field({}, description="further indexes by name: {legal = 'legal.index'}")
    score_cache: bool = Field(default=True, description="remember scores beside the index")
    uploads: Path | None = Field(None, description="folder of uploaded files; none = beside the index")
    feedback: Path | None = Field(None, description="folder of feedback; none = beside the index")
    mcp_write: bool = Field(default=False, description="let MCP clients add documents")
    log_format: Literal["text", "json"] = Field("text", description="text or json")

    concurrency: int = Field(8, ge=1, le=1_024, description="requests worked on at once")
    queue_seconds: float = Field(10.0, gt=0, description="longest wait that is not refused with 429")
    timeout: float = Field(120.0, gt=0, description="longest time for a request")
    grace_seconds: float = Field(20.0, ge=0, description="time to finish in when told to stop")
    heartbeat_seconds: float = Field(10.0, gt=0, description="silence after which a stream sends a comment")
    breaker_failures: int = Field(
        5, ge=1, description="failures of the language model in a row, after which it is not asked"
    )
    breaker_seconds: float = Field(15.0, gt=0, description="time until it is asked again")
    batch_tokens: int = Field(
        1_024, ge=64, description="tokens that the reranker reads at once, of all requests"
    )

    body_bytes: int = Field(2_097_152, ge=1_024, description="largest request but an upload")
    body_seconds: float = Field(30.0, gt=0, description="time for a request to arrive in")
    json_depth: int = Field(64, ge=4, description="deepest nesting of JSON")
    upload_bytes: int = Field(67_108_864, ge=1_024, description="largest upload")
    upload_files: int = Field(32, ge=1, description="files of an upload")
    feedback_bytes: int = Field(
        16_777_216, ge=1_024, description="most feedback that is kept, for a collection and a tenant"
    )
    feedback_per_minute: int = Field(60, ge=1, description="thumbs of one key in a minute")
    question_characters: int = Field(65_536, ge=1, description="longest question")
    history_turns: int = Field(64, ge=0, description="earlier turns of a conversation")
    top_k: int = Field(100, ge=1, le=1_000, description="passages of a search")
    rerank_documents: int = Field(1_000, ge=1, description="documents of a rerank request")
    embedding_inputs: int = Field(256, ge=1, description="texts of an embeddings request")

    @field_validator("api_key")
    @classmethod
    def _key_is_shown_in_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        """Without the white space around it, such as the end of the line in a file that holds it."""
        if value is None:
            return None
        if not (key := value.get_secret_value().strip()):
            raise ValueError("the key is empty: leave it out where none is wanted")
        return SecretStr(key)

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _hosts_with_commas(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("collections", mode="before")
    @classmethod
    def _collections_with_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = (part.partition("=") for part in value.split(",") if part.strip())
        return {name.strip(): path.strip() for name, _, path in pairs}

    @field_validator("collections")
    @classmethod
    def _collections_are_named(cls, value: dict[str, Path]) -> dict[str, Path]:
        for name in value:
            if not re.fullmatch("[A-Za-z0-9_-]{1,63}", name) or name == "default":
                raise ValueError(
                    f"{name!r} is no name of a collection: letters A to Z, digits, - and _, at most 63;"
                    " not default"
                )
        return value

"""The section `[loading]`: what is read of a file, and how much one may take. Inert, as all settings."""

from __future__ import annotations

from pydantic import Field, field_validator

from .section import Section


class LoadingSettings(Section):
    """Files to text. Limits are for one file, which fails beyond them."""

    fields: tuple[str, ...] = Field(
        (), description="columns of tables and dotted names in JSON to keep, with commas; none = all"
    )
    file_bytes: int = Field(268_435_456, ge=1, description="largest file")
    text_characters: int = Field(16_000_000, ge=1, description="longest text of a document")
    memory_bytes: int = Field(1_073_741_824, ge=2**20, description="what a parser may take (Linux)")
    cpu_seconds: float = Field(120.0, gt=0, description="processor time of a parser")
    seconds: float = Field(300.0, gt=0, description="time of a parser on the clock")
    workers: int = Field(0, ge=0, le=256, description="parsers at once; 0 = one per core, at most 4")

    @field_validator("fields", mode="before")
    @classmethod
    def _fields_with_commas(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

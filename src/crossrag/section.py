"""What every section of the settings is: unknown keys are errors, values never change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Unknown keys are errors, values never change after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

"""Haystack would send usage figures; LlamaIndex would fetch nothing here, and must not begin to."""

from __future__ import annotations

import os

# Read when haystack is imported, which is before any fixture runs.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

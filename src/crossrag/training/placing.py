"""Where a new model goes: refused places, and a folder that is exchanged whole."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from crossrag.errors import UsageError


def check_places(start: Path, out: Path) -> None:
    """Refuse at once what could only fail, or destroy something, after hours.

    Raises:
        UsageError: `out`, or the place of a refused model, is no model of ours, or is `start`.
    """
    if not out.name:
        raise UsageError(f"{out} cannot be the folder of a model", hint="Name a new folder with --out")
    if not is_ours(start):
        raise UsageError(
            f"{start} holds no model that training could go on from",
            hint="Start from a folder that crossrag exported, or leave --start out for the bundled model",
        )
    for place in (out, rejected(out)):
        if place.resolve() == start.resolve() or place.resolve() in start.resolve().parents:
            raise UsageError(
                f"{place} would replace the model that training starts from", hint="Name another folder"
            )
        if place.exists() and not is_ours(place):
            raise UsageError(f"{place} exists and is no model of crossrag", hint="Name another folder")


def rejected(out: Path) -> Path:
    """Where a model goes that was not better."""
    return out.with_name(f"{out.name}.rejected")


def is_ours(place: Path) -> bool:
    """Whether a folder is an exported reranker."""
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        return bool(config["kind"] == "progressive")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def put(folder: Path, place: Path) -> None:
    """Copy whole, then swap. What is killed in between is mended by `restore`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix=_prefix(place)))
    fresh, old = scratch / "new", scratch / "old"
    shutil.copytree(folder, fresh)
    if place.exists():
        place.rename(old)
    try:
        fresh.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise
    shutil.rmtree(scratch, ignore_errors=True)


def restore(place: Path) -> bool:
    """Put back the model that stood at `place` when an exchange was killed; whether there was one."""
    if place.exists():
        return False
    for old in sorted(place.parent.glob(f"{_prefix(place)}*/old")):
        old.rename(place)
        shutil.rmtree(old.parent, ignore_errors=True)
        return True
    return False


def _prefix(place: Path) -> str:
    return f".{place.name}.exchange-"

"""Where in its folder an index lives: the folder itself, or the subfolder that the file `current` names.

A rebuilt index stands beside the old one until `current` is replaced, in one step, by one that names it.
"""

from __future__ import annotations

import os
import re
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from uuid import uuid4

from .errors import StoreError

_POINTER = "current"
_SUBFOLDER = re.compile(r"index-(\d{1,9})")
_IDENTITY = "identity"
_MANIFEST = "manifest*.sqlite"
_STORE_FILES = ("fingerprint.json", "fingerprint.new", "holder.json", "holder.new", _IDENTITY, "identity.new")
_ENGINE = {"edge_config.json", "segments", "wal"}
_SPARE_BYTES = 64 << 20
"""Left free on disk: the engine's log and what it maps into memory may take 53 MB, whatever is in it."""


def home(path: Path) -> Path:
    """The folder that holds manifest and store of the index at `path`, which need not exist.

    Raises:
        StoreError: The file `current` names no subfolder of an index.
    """
    pointer = path / _POINTER
    try:
        name = pointer.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return path
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{pointer} cannot be read: {error}", hint="Check its permissions") from None
    if not _SUBFOLDER.fullmatch(name):
        raise StoreError(
            f"{pointer} names {name[:40]!r}, which is no index",
            hint=f"Write the name of the newest folder index-… of {path} into it",
        )
    return path / name


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index, whosever it is: what lies there is made of documents, and is none."""
    try:
        # Most folders are none, and a look at three names tells without listing them.
        if not any((folder / name).is_file() for name in ("fingerprint.json", _IDENTITY, _POINTER)):
            return False
        names = {entry.name for entry in folder.iterdir()}
    except OSError:  # for whoever enters it to say
        return False
    has_manifest = any(fnmatchcase(name, _MANIFEST) for name in names)
    return (has_manifest and not names.isdisjoint(_STORE_FILES)) or (
        _POINTER in names and any(_SUBFOLDER.fullmatch(name) for name in names)
    )


def beside(path: Path) -> Path:
    """Where to build the index that will replace the present one; what an earlier build left is there."""
    others = [number for number, _ in _subfolders(path)]
    now = _SUBFOLDER.fullmatch(home(path).name) if home(path) != path else None
    present = int(now[1]) if now else 0
    later = [number for number in others if number > present]
    return path / f"index-{min(later, default=present + 1)}"


def switch(path: Path, new: Path) -> None:
    """Make `new`, a folder from `beside`, the index; it must be whole and on disk.

    Whoever looks, whenever this is cut short, finds the old index or the new one.
    """
    _write(path / _POINTER, new.name)


def identity(home: Path) -> str:
    """The random name that a folder shares with its collection on a server; empty where it has none."""
    try:
        return (home / _IDENTITY).read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{home / _IDENTITY} cannot be read: {error}", hint="Check its permissions"
        ) from None


def identify(home: Path) -> str:
    """The same, given to it if it has none."""
    if not (known := identity(home)):
        home.mkdir(parents=True, exist_ok=True)
        _write(home / _IDENTITY, known := uuid4().hex)
    return known


def identified(path: Path, wanted: str) -> Path | None:
    """The folder of that identity, within an index's or that itself; None where there is none."""
    present = home(path)
    folders = [present, path, *(folder for _, folder in _subfolders(path))]
    return next((folder for folder in folders if wanted and identity(folder) == wanted), None)


def sweep(path: Path) -> None:
    """Remove what a switch has left behind; the index itself stays, and so does one that is being built."""
    present = home(path)
    if present == path:
        return
    clear(path)
    number = int(present.name.rpartition("-")[2])
    for older, folder in _subfolders(path):
        if older < number:
            shutil.rmtree(folder, ignore_errors=True)


def clear_all(path: Path) -> None:
    """Remove the index and all that stands beside it; what is superseded first, lest it come back."""
    present = home(path)
    clear(path)
    clear(present)
    (path / _POINTER).unlink(missing_ok=True)
    for _, folder in _subfolders(path):
        shutil.rmtree(folder, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove an index from the folder that holds it, and nothing else that may lie there.

    The manifest goes first: without it nothing is taken for indexed, wherever this is cut short.
    """
    for file in (*sorted(folder.glob("manifest*.sqlite*")), *(folder / name for name in _STORE_FILES)):
        file.unlink(missing_ok=True)
    shutil.rmtree(folder / "shard", ignore_errors=True)


def clear_unfinished(folder: Path) -> None:
    """Remove a store whose creation was cut short: its fingerprint is written last, so it holds nothing."""
    shard = folder / "shard"
    if not shard.is_dir() or (folder / "fingerprint.json").exists():
        return
    if {entry.name for entry in shard.iterdir()} <= _ENGINE:
        shutil.rmtree(shard)


def check_room(home: Path, size: int) -> None:
    """The engine maps its files into memory, and a full disk would end the process: stop before that.

    Raises:
        StoreError: There is not enough room for that many bytes and what the engine makes of them.
    """
    folder = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    needed, free = _SPARE_BYTES + 4 * size, shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"There are {free >> 20} MiB free at {home} and {needed >> 20} MiB are needed",
            hint="Make room there, then run the same command again",
        )


def _subfolders(path: Path) -> list[tuple[int, Path]]:
    if not path.is_dir():
        return []
    found = ((_SUBFOLDER.fullmatch(entry.name), entry) for entry in path.iterdir() if entry.is_dir())
    return sorted((int(match[1]), entry) for match, entry in found if match)


def _write(file: Path, text: str) -> None:
    """In one step, and on disk when this returns."""
    temporary = file.with_name(f"{file.name}.new")
    with temporary.open("w", encoding="utf-8") as written:
        written.write(text)
        written.flush()
        os.fsync(written.fileno())
    temporary.replace(file)
    _flush_folder(file.parent)


def _flush_folder(path: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

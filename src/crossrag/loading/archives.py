"""Office files are ZIP archives of XML. What one would unpack to is looked at before anything unpacks it."""

from __future__ import annotations

import io
import zipfile

from crossrag.errors import LoadError

OFFICE_HINT = "Open it in an office program and save it again"

_MOST_FILES = 20_000
_LARGEST = 512 * 2**20
_PROLOGUE = 4_096


def check_archive(data: bytes, *, holds: str, kind: str) -> None:
    """Refuse what is no such file, what unpacks to more than 512 MiB, and XML that defines entities.

    Raises:
        LoadError: As said; the message goes on after the name of the file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_size(members)
            if not any(member.filename.startswith(holds) for member in members):
                raise LoadError(f"is a ZIP archive but no {kind}", hint="Give it the suffix of its real type")
            if any(member.flag_bits & 1 for member in members):
                raise LoadError("is encrypted with a password", hint="Save a copy without a password")
            for member in members:
                if member.filename.endswith((".xml", ".rels")):
                    _check_prologue(archive, member)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        raise LoadError(f"is no {kind} that can be read: {str(error)[:120]}", hint=OFFICE_HINT) from None


def _check_size(members: list[zipfile.ZipInfo]) -> None:
    # Nobody can read past a size that is declared too small: `zipfile` stops there.
    total = sum(member.file_size for member in members)
    if len(members) > _MOST_FILES or total > _LARGEST:
        raise LoadError(
            f"would unpack to {len(members)} files of {total / 2**20:.0f} MiB, too much to be a document",
            hint="Save it without its pictures, or leave it out",
        )


def _check_prologue(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as file:
        head = file.read(_PROLOGUE)
    if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
        raise LoadError(
            f"defines entities in {member.filename[:80]}, which office files never do", hint=OFFICE_HINT
        )

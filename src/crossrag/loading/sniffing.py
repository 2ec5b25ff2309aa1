"""The first bytes of a file -> what it is, where they say so."""

from __future__ import annotations

import io
import re
import zipfile

_SIGNATURES = (
    (b"%PDF-", "a PDF", ".pdf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or encrypted office file", ""),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", ".png"),
    (b"\xff\xd8\xff", "a JPEG picture", ".jpg"),
    (b"GIF87a", "a GIF picture", ""),
    (b"GIF89a", "a GIF picture", ""),
    (b"II*\0", "a TIFF picture", ".tiff"),
    (b"MM\0*", "a TIFF picture", ".tiff"),
    (b"\x1f\x8b\x08", "a gzip archive", ""),
    (b"BZh9", "a bzip2 archive", ""),
    (b"\xfd7zXZ\0", "an xz archive", ""),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", ""),
    (b"Rar!\x1a\x07", "a RAR archive", ""),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", ""),
    (b"{\\rtf", "a Rich Text file", ""),
    (b"\x7fELF", "a program", ""),
    (b"SQLite format 3\0", "an SQLite database", ""),
)
_OFFICE = {
    "word/": ("a Word document", ".docx"),
    "ppt/": ("a PowerPoint presentation", ".pptx"),
    "xl/": ("an Excel workbook", ".xlsx"),
}
_WEB_PAGE = re.compile(rb"\s*(?:<!doctype html|<html)[\s>]", re.IGNORECASE)


def sniff(data: bytes) -> tuple[str, str]:
    """In words what the bytes are, such as `a PDF`, and the suffix of it that can be read; or nothing."""
    for signature, kind, suffix in _SIGNATURES:
        if data.startswith(signature):
            return kind, suffix
    if data.startswith(b"PK\x03\x04"):
        return _archive(data)
    return ("a web page", ".html") if _WEB_PAGE.match(data[:512]) else ("", "")


def _archive(data: bytes) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return "", ""
    for folder, known in _OFFICE.items():
        if any(name.startswith(folder) for name in names):
            return known
    return "a ZIP archive", ""

"""Path or bytes -> Document; one function per file type, chosen by suffix.

Text is repaired here, once, for everything that follows. Knows nothing of chunks or indexes; fetches nothing.
"""

from __future__ import annotations

import io
import re
import stat
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import LoadError
from .types import Document

_LINE_BREAKS = re.compile(r"\r\n?|[\f\v\x1c-\x1e\x85\u2028\u2029]")
# C0 and C1 controls but tab and newline; zero-width characters that carry no meaning (U+200C and U+200D do).
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ufff9-\ufffb]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_FRONT_MATTER = re.compile(r"\A---\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:[ \t]*[\"']?(.*?)[\"']?[ \t]*$", re.MULTILINE)
_FIRST_HEADING = re.compile(r"^#[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
_HTML_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_HTML_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_BOILERPLATE = ["nav", "header", "footer", "aside", "script", "style", "form", "noscript", "template"]


@dataclass(frozen=True, slots=True)
class _Parsed:
    text: str
    title: str = ""
    markdown: bool = False
    page_starts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Files below a root, in order of their path."""

    known: tuple[Path, ...]
    unknown: tuple[Path, ...]
    """Regular files whose suffix no parser is for."""


def find_files(root: Path) -> Found:
    """Regular files below `root`, hidden ones left out; a file given by name is found whatever it is called.

    Links to folders are not followed, so that no loop can hold the walk; devices and pipes are never opened.
    """
    if not root.is_dir():
        return Found((root,), ()) if root.suffix.lower() in PARSERS else Found((), (root,))
    known: list[Path] = []
    unknown: list[Path] = []
    for folder, folders, names in root.walk() if hasattr(root, "walk") else _walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = folder / name
            if _is_regular(path):
                (known if path.suffix.lower() in PARSERS else unknown).append(path)
    return Found(tuple(known), tuple(unknown))


def load(path: Path, *, document_id: str, source: str) -> Document:
    """Read a file.

    Raises:
        LoadError: It cannot be read, or not as what its suffix says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LoadError(
            f"{source} cannot be read: {error.strerror}", hint="Check that it exists and its permissions"
        ) from None
    return load_bytes(data, suffix=path.suffix, document_id=document_id, source=source)


def load_bytes(data: bytes, *, suffix: str, document_id: str, source: str) -> Document:
    """Parse bytes by the parser for `suffix`; the text may be empty.

    Raises:
        LoadError: The type is unknown, or the bytes are not of it.
    """
    parser = PARSERS.get(suffix.lower())
    if parser is None:
        raise LoadError(f"{source} is of no known type", hint=f"Known are {', '.join(sorted(PARSERS))}")
    try:
        parsed = parser(data)
    except LoadError as error:
        raise LoadError(f"{source}: {error.message}", hint=error.hint) from None
    return Document(
        id=document_id,
        source=clean_text(source),
        text=parsed.text,
        title=clean_text(parsed.title).strip(),
        markdown=parsed.markdown,
        page_starts=parsed.page_starts,
    )


def clean_text(text: str) -> str:
    """Valid Unicode in NFC, lines ended by a newline alone, nothing invisible that has no meaning."""
    text = _SURROGATES.sub("\ufffd", text)
    text = _INVISIBLE.sub("", _LINE_BREAKS.sub("\n", text))
    return unicodedata.normalize("NFC", text)


def _parse_text(data: bytes) -> _Parsed:
    return _Parsed(clean_text(_decode(data)))


def _parse_markdown(data: bytes) -> _Parsed:
    """Front matter gives the title and is left out of the text."""
    text = clean_text(_decode(data))
    title = ""
    if front := _FRONT_MATTER.match(text):
        named = _FRONT_TITLE.search(front[1])
        title, text = (named[1] if named else ""), text[front.end() :]
    heading = _FIRST_HEADING.search(text)
    return _Parsed(text, title or (heading[1] if heading else ""), markdown=True)


def _parse_html(data: bytes) -> _Parsed:
    """Main text as Markdown, so that headings survive; links as their text, no images, nothing fetched."""
    declared = _HTML_CHARSET.search(data[:2048])
    html = clean_text(_decode(data, declared[1].decode("ascii") if declared else None))
    text = _as_markdown(html, _BOILERPLATE) or _as_markdown(html, ["script", "style", "template"])
    named = _HTML_TITLE.search(html)
    heading = _FIRST_HEADING.search(text)
    title = _unescaped(named[1]) if named else heading[1] if heading else ""
    return _Parsed(text, title, markdown=True)


def _as_markdown(html: str, without: list[str]) -> str:
    from html_to_markdown import ConversionOptions, convert

    options = ConversionOptions(
        skip_images=True, extract_metadata=False, exclude_selectors=without, strip_tags=["a"], autolinks=False
    )
    try:
        content = convert(html, options).content
    except Exception as error:  # noqa: BLE001 - the converter's exceptions share no base but this
        raise LoadError(
            f"is no HTML that can be read: {str(error)[:120]}", hint="Save it again from a browser"
        ) from None
    return clean_text(content or "").strip()


def _unescaped(title: str) -> str:
    from html import unescape

    return " ".join(unescape(title).split())


def _parse_pdf(data: bytes) -> _Parsed:
    from pypdf import PdfReader

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise LoadError("the PDF is encrypted", hint="Save a copy without a password")
        pages = [clean_text(page.extract_text()).strip() for page in reader.pages]
        title = str(reader.metadata.title or "") if reader.metadata else ""
    except LoadError:
        raise
    except Exception as error:  # noqa: BLE001 - a broken PDF makes pypdf raise whatever its damage leads to
        raise LoadError(
            f"is no PDF that can be read: {str(error)[:120]}", hint="Open and save it again"
        ) from None
    starts, offset = [], 0
    for page in pages:
        starts.append(offset)
        offset += len(page) + 2
    # Cleaned page by page, so that the offsets hold; NFC may not join across the blank line between pages.
    return _Parsed("\n\n".join(pages), title, page_starts=tuple(starts))


def _decode(data: bytes, declared: str | None = None) -> str:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    for candidate in ("utf-8", declared or "utf-8"):
        try:
            return data.decode(candidate)
        except (UnicodeDecodeError, LookupError):
            continue
    return _guessed(data)


def _guessed(data: bytes) -> str:
    from charset_normalizer import from_bytes

    if data[:4096].count(0) > len(data[:4096]) // 50:
        raise LoadError("is binary, not text", hint="Give it the suffix of its real type")
    best = from_bytes(data[:200_000]).best()
    if best is None:
        raise LoadError("has no encoding that can be recognised", hint="Save it as UTF-8")
    return data.decode(best.encoding, errors="replace")


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _walk(root: Path):  # type: ignore[no-untyped-def]
    """`Path.walk` for Python 3.11."""
    import os

    for folder, folders, names in os.walk(root):
        yield Path(folder), folders, names


PARSERS: Mapping[str, Callable[[bytes], _Parsed]] = {
    **dict.fromkeys((".txt", ".text", ".log", ".rst"), _parse_text),
    **dict.fromkeys((".md", ".markdown", ".mdown"), _parse_markdown),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _parse_html),
    ".pdf": _parse_pdf,
}
"""File type by suffix. A further format is one function and one line."""

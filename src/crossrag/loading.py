"""Path or bytes -> Document; one function per file type, chosen by suffix.

Text is repaired here, once, for everything that follows. Knows nothing of chunks or indexes; fetches nothing.
"""

from __future__ import annotations

import codecs
import io
import logging
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LoadError, did_you_mean
from .types import Document

if TYPE_CHECKING:
    from pypdf import PdfReader

_LINE_BREAKS = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
# Terminal colours first, or their letters stay when the escape goes. Then C0 and C1 controls but tab and
# newline, zero-width characters without meaning (U+200C and U+200D have one), and Unicode tags, which can
# hide whole sentences from a reader but not from a language model.
_INVISIBLE = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\u00ad+\n?"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SURROGATES = re.compile(r"[\ud800-\udfff]")
# YAML begins with a key; a rule above prose does not make the prose front matter.
_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(\w[^\n:]*:[^\n]*\n(?:\w[^\n:]*:[^\n]*\n|[ \t#-][^\n]*\n|\n)*?)"
    r"(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
)
_FRONT_TITLE = re.compile(r"^title:([^\n]*)$", re.MULTILINE)
_HTML_TITLE = re.compile(r"<title(?:\s[^<>]{0,200})?>([^<]{0,1000})", re.IGNORECASE)
_HTML_MAIN = re.compile(r"</?main[\s>]", re.IGNORECASE)
_HTML_CHARSET = re.compile(
    rb"<(?:meta[^>]{0,200}charset|\?xml[^>]{0,100}encoding)\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE
)
_NOISE = ["script", "style", "template", "noscript", "iframe", "svg", "video", "audio", "button", "select"]
_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
_FILE_NAME = re.compile(r"untitled\b|microsoft (?:word|powerpoint|excel)\b|.*\.\w{2,5}$", re.IGNORECASE)
_TITLE_LENGTH = 200
"""A title goes with every chunk; a longer one is no title."""


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
    """Regular files below `root`, hidden ones left out; a file given by name is found though it be hidden.

    Links to folders are not followed, so that no loop can hold the walk; devices and pipes are never opened.

    Raises:
        LoadError: A folder cannot be listed: to leave it out would look as if its files had been deleted. Or
            `root` itself is neither a folder nor a regular file.
    """
    if root.is_dir():
        regular = sorted(path for path in _walk(root) if _is_regular(path))
    else:
        _check_regular(root, str(root))
        regular = [root]
    return Found(
        known=tuple(path for path in regular if path.suffix.lower() in PARSERS),
        unknown=tuple(path for path in regular if path.suffix.lower() not in PARSERS),
    )


def _walk(root: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise _unreadable(str(error.filename), error)

    paths = []
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(folder, name) for name in names if not name.startswith(".")]
    return paths


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _check_regular(path: Path, source: str) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(source, error) from None
    if not stat.S_ISREG(mode):
        raise LoadError(f"{clean_text(source)} is no regular file", hint="Give a file or a folder")


def _unreadable(source: str, error: OSError) -> LoadError:
    reason = error.strerror or type(error).__name__
    return LoadError(
        f"{clean_text(source)} cannot be read: {reason}", hint="Check that it exists and its permissions"
    )


def load(path: Path, *, document_id: str, source: str) -> Document:
    """Read a file.

    Raises:
        LoadError: It cannot be read, or not as what its suffix says.
    """
    _check_regular(path, source)  # to open a pipe would wait for a writer that may never come
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(source, error) from None
    return load_bytes(data, suffix=path.suffix, document_id=document_id, source=source)


def load_bytes(data: bytes, *, suffix: str, document_id: str, source: str) -> Document:
    """Parse bytes by the parser for `suffix`, such as `.md`; the text may be empty.

    Raises:
        LoadError: The type is unknown, or the bytes are not of it.
    """
    source = clean_text(source)
    parser = PARSERS.get(suffix.lower())
    if parser is None:
        raise LoadError(f"{source} is of no known type", hint=did_you_mean(suffix.lower(), PARSERS))
    try:
        parsed = parser(data)
    except LoadError as error:
        raise LoadError(f"{source}: {error.message}", hint=error.hint) from None
    return Document(
        id=document_id,
        source=source,
        text=parsed.text,
        title=" ".join(clean_text(parsed.title).split())[:_TITLE_LENGTH].rstrip(),
        markdown=parsed.markdown,
        page_starts=parsed.page_starts,
    )


# --- repair -----------------------------------------------------------------------------------------------


def clean_text(text: str) -> str:
    """Valid Unicode in NFC, lines ended by a newline alone, nothing invisible that has no meaning.

    Every way in passes here once, so that nothing later has to think of it. Cleaning twice changes nothing.
    """
    text = _INVISIBLE.sub("", _LINE_BREAKS.sub("\n", _SURROGATES.sub("\ufffd", text)))
    if text.isascii():
        return text
    # Before, because to sort n marks takes n² steps; after, because the normal form may have more of them.
    return _few_marks(unicodedata.normalize("NFC", _few_marks(text)))


def _few_marks(text: str) -> str:
    """At most 30 combining marks in a row, the bound of Unicode's Stream-Safe Text Format (UAX 15, 12.1)."""
    mark, flood = _marks()
    # A run of 31 cannot avoid every 31st character; few texts have marks there, and to look is cheap.
    return flood.sub(r"\1", text) if mark.search(text[30::31]) else text


@cache
def _marks() -> tuple[re.Pattern[str], re.Pattern[str]]:
    marks = "".join(chr(code) for code in range(0x300, 0x1F000) if unicodedata.combining(chr(code)))
    return re.compile(f"[{marks}]"), re.compile(f"([{marks}]{{30}})[{marks}]+")


# --- one parser per type ----------------------------------------------------------------------------------


def _parse_text(data: bytes) -> _Parsed:
    return _Parsed(clean_text(_decode(data)))


def _parse_markdown(data: bytes) -> _Parsed:
    """YAML front matter gives the title and is left out of the text; offsets count from behind it."""
    text = clean_text(_decode(data))
    title = ""
    if front := _FRONT_MATTER.match(text):
        named = _FRONT_TITLE.search(front[1])
        title = named[1].strip().strip("\"'") if named else ""
        text = text[front.end() :]
    return _Parsed(text, title or _first_heading(text), markdown=True)


def _first_heading(text: str) -> str:
    """The first heading of level 1, in either style, outside fenced code."""
    fence, before = "", ""
    for line in text.split("\n"):
        mark = line.lstrip()[:3]
        if mark in {"```", "~~~"} and fence in {"", mark}:
            fence = "" if fence else mark
        elif not fence and line.startswith("# "):
            return re.sub(r" #+$", "", line[2:].strip()).replace("`", "").strip("* ")
        elif not fence and before and len(line) > 2 and not line.rstrip().strip("="):
            return before
        before = "" if fence else line.strip()
    return ""


def _parse_html(data: bytes) -> _Parsed:
    """Main text as Markdown, so that headings survive; links as their text, no images, nothing fetched."""
    declared = _HTML_CHARSET.search(data[:2048])
    html = clean_text(_decode(data, declared[1].decode("ascii", "replace") if declared else ""))
    text = _main_text(html)
    named = _HTML_TITLE.search(html)
    return _Parsed(text, unescape(named[1]) if named else _first_heading(text), markdown=True)


def _main_text(html: str) -> str:
    """What `<main>` holds; else all but the page's frame; else, where the frame is all there is, everything.

    Forms stay: some frameworks wrap the whole page in one. Only their buttons and lists of choices go.
    """
    tags = [tag.start() for tag in _HTML_MAIN.finditer(html)]
    frame = ["nav", "footer"]
    return (
        (len(tags) > 1 and _as_markdown(html[tags[0] : tags[-1]], frame))
        or _as_markdown(html, [*frame, "aside"], site_header=False)
        or _as_markdown(html, [])
    )


def _as_markdown(html: str, without: list[str], *, site_header: bool = True) -> str:
    from html_to_markdown import ConversionError, ConversionOptions, PreprocessingOptions, convert

    options = ConversionOptions(
        autolinks=False,
        exclude_selectors=_NOISE + without,
        extract_metadata=False,
        hidden_content="reachable",  # the text of tabs that are not open
        include_blockquote_citations=False,
        # Knows a site's header from an article's own, which selectors cannot say.
        preprocessing=PreprocessingOptions(enabled=not site_header, remove_forms=False),
        skip_images=True,
        strip_tags=["a"],
    )
    try:
        content = convert(html, options).content
    except ConversionError as error:
        raise LoadError(
            f"is no HTML that can be read: {str(error)[:120]}", hint="Save it again from a browser"
        ) from None
    return clean_text(content or "").strip()


def _parse_pdf(data: bytes) -> _Parsed:
    """Text page by page; empty where no page has any, as in a scan."""
    pages, title = _read_pdf(data)
    starts, offset = [], 0
    for page in pages:
        starts.append(offset)
        offset += len(page) + 2
    # Cleaned page by page, so that the offsets hold; NFC joins nothing across the blank line between pages.
    text = "\n\n".join(pages)
    return _Parsed(text, title, page_starts=tuple(starts)) if text.strip() else _Parsed("", title)


def _read_pdf(data: bytes) -> tuple[list[str], str]:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    # pypdf tells of every mended flaw; without a handler of its own that would go to the user's terminal.
    logging.getLogger("pypdf").addHandler(logging.NullHandler())
    try:
        reader = PdfReader(io.BytesIO(data))
        pages = [clean_text(page.extract_text().translate(_LIGATURES)).strip() for page in reader.pages]
        return pages, _pdf_title(reader)
    except FileNotDecryptedError:
        raise LoadError("is encrypted with a password", hint="Save a copy without a password") from None
    except DependencyError:
        raise LoadError(
            "is encrypted with AES", hint="Install the package `cryptography`, or save a copy unencrypted"
        ) from None
    except Exception as error:  # noqa: BLE001 - a broken PDF makes pypdf raise whatever its damage leads to
        reason = clean_text(str(error))[:120] or type(error).__name__
        raise LoadError(f"is no PDF that can be read: {reason}", hint="Open it and save it again") from None


def _pdf_title(reader: PdfReader) -> str:
    """The title of the metadata, unless an office program has put the file's name there."""
    title = str(reader.metadata.title or "").strip() if reader.metadata else ""
    return "" if _FILE_NAME.match(title) else title


# --- encodings --------------------------------------------------------------------------------------------

_MARKS = (  # the longer first: UTF-32's begins like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What a page may declare, and the superset by which browsers read it. https://encoding.spec.whatwg.org/#names-and-labels
_DECLARABLE = re.compile(r"iso8859-\d+|cp\d+|koi8-[ru]|gb\w+|big5\w*|shift_jis\w*|euc_\w+|mac-\w+|ascii")
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
# In real use for documents; with all that Python knows, short texts are taken for rarities.
_GUESSABLE = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "iso8859_2"),
    *("koi8_r", "cp932", "euc_jp", "gb18030", "big5", "cp949"),
]
_CONTROLS = bytes([*range(9), *range(14, 27), *range(28, 32), 127])
# Curly quotes, dashes, signs: no letter, so nothing but Windows' Western code page was meant.
_WESTERN_SIGNS = bytes([*range(128), 0x80, 0x85, *range(0x91, 0x98), 0x99, *range(0xA0, 0xC0)])

# Where Western code pages have signs, others have letters: Polish and Romanian words are full of them.
_SIGN_WITHIN_WORD = re.compile(rb"[a-z][\xa1-\xac\xae-\xb3\xb5\xb6\xb8-\xbf][a-z]")


def _decode(data: bytes, declared: str = "") -> str:
    """By its mark, as UTF-8, as declared, by the best guess.

    UTF-8 goes before the declaration: other text is hardly ever valid UTF-8, wrong declarations are common.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    sample = data[:65_536]
    if len(sample) - len(sample.translate(None, _CONTROLS)) > 8 + len(sample) // 20:
        raise LoadError(
            "is binary, not text", hint="Save it as UTF-8, or give it the suffix of its real type"
        )
    escaped = "iso2022_jp" if b"\x1b$" in data else "utf-8"  # ISO 2022 is made of valid ASCII
    for candidate in (escaped, "utf-8", _declared(declared)):
        try:
            return data.decode(candidate)
        except UnicodeDecodeError:
            continue
    return data.decode(_guess(data), errors="replace")


def _declared(name: str) -> str:
    """The codec for a declared name; UTF-8, which has failed, for one that no page may declare."""
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        return "utf-8"
    return _SUPERSETS.get(codec, codec) if _DECLARABLE.fullmatch(codec) else "utf-8"


def _guess(data: bytes) -> str:
    from charset_normalizer import from_bytes

    if not data.translate(None, _WESTERN_SIGNS):
        return "cp1252"
    matches = from_bytes(data, cp_isolation=_GUESSABLE)
    best = matches.best()
    if best is None:
        raise LoadError("has no encoding that can be recognised", hint="Save it as UTF-8")
    # Western and Central European text often score the same, and then the order of names would decide.
    rivals = [match for match in matches if "cp1252" in match.could_be_from_charset]
    tied = any((match.chaos, -match.coherence) <= (best.chaos, -best.coherence) for match in rivals)
    return "cp1252" if tied and not _SIGN_WITHIN_WORD.search(data) else best.encoding


PARSERS: Mapping[str, Callable[[bytes], _Parsed]] = {
    **dict.fromkeys((".txt", ".text", ".log", ".rst", ".adoc", ".org"), _parse_text),
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mdx"), _parse_markdown),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _parse_html),
    ".pdf": _parse_pdf,
}
"""File type by suffix. A further format is one function and one line."""

SUPPORTED_SUFFIXES = tuple(sorted(PARSERS))

"""The file types by suffix. A further format is one function and one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from crossrag.errors import LoadError, did_you_mean

from .mail import parse_mail
from .markup import parse_html, parse_markdown
from .office import parse_presentation, parse_word
from .parsed import Parsed
from .pdf import parse_pdf
from .pictures import SUFFIXES as PICTURES
from .pictures import parse_picture, prepare, why_not
from .records import parse_json, parse_json_lines
from .sniffing import sniff
from .tables import parse_csv, parse_workbook
from .text import LANGUAGES, parse_restructured, parse_source, parse_text

Parser = Callable[[bytes], Parsed]

_TEXTS: Mapping[str, Parser] = {
    **dict.fromkeys((".txt", ".text", ".log", ".adoc", ".org"), parse_text),
    **dict.fromkeys((".rst", ".rest"), parse_restructured),
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mdx"), parse_markdown),
    **{suffix: partial(parse_source, language=language) for suffix, language in LANGUAGES.items()},
}
_TABLES = {
    **dict.fromkeys((".csv", ".tsv"), parse_csv),
    **dict.fromkeys((".jsonl", ".ndjson"), parse_json_lines),
    ".json": parse_json,
}
_WITH_FIELDS = {**_TABLES, **dict.fromkeys((".xlsx", ".xlsm"), parse_workbook)}
PARSERS: Mapping[str, Parser] = {
    **_TEXTS,
    **_WITH_FIELDS,
    **dict.fromkeys((".html", ".htm", ".xhtml"), parse_html),
    ".pdf": parse_pdf,
    ".docx": parse_word,
    ".pptx": parse_presentation,
    ".eml": parse_mail,
    **dict.fromkeys(PICTURES, parse_picture),
}
"""File type by suffix, in lower case."""

SUPPORTED_SUFFIXES = tuple(sorted(PARSERS))

_ALSO = {".xlsm": ".xlsx", ".htm": ".html", ".xhtml": ".html", ".jpeg": ".jpg", ".tif": ".tiff"}
"""Suffixes of the same type as another one."""


def reason_against(suffix: str) -> str:
    """Why files of this type are left out of a folder without being opened; nothing where they are not."""
    if suffix.lower() in PICTURES:
        return why_not()
    return "" if suffix.lower() in PARSERS else f"no parser for {suffix or 'its type'}"


def is_plain(suffix: str) -> bool:
    """Whether the type is text, a table or JSON: nothing compressed, no parser but Python's own.

    So is an unknown type, for which there is no parser at all.
    """
    suffix = suffix.lower()
    return suffix in _TEXTS or suffix in _TABLES or suffix not in PARSERS


def prepare_for(suffix: str) -> None:
    """Load what the parser itself takes much memory for, before memory is limited for the sake of a file.

    Raises:
        LoadError: It is not installed.
    """
    if suffix.lower() in PICTURES:
        prepare()


def parse(data: bytes, *, suffix: str, fields: Sequence[str] = ()) -> Parsed:
    """Parse bytes by the parser for `suffix`, unless they are plainly of another type.

    Args:
        data: The whole file.
        suffix: Such as `.md`, in any case.
        fields: Columns of a table or dotted names in JSON to keep, in order; all where it has none of them.

    Raises:
        LoadError: Type unknown, bytes of another one, or broken. The message goes on after the file's name.
    """
    suffix = suffix.lower()
    parser = PARSERS.get(suffix)
    if parser is None:
        raise LoadError("is of no known type", hint=did_you_mean(suffix, PARSERS))
    kind, real = sniff(data)
    # A page under another suffix of text may be an example; under one of an archive it is a failed download.
    if kind and real != _ALSO.get(suffix, suffix) and not (real == ".html" and _may_show_html(suffix)):
        hint = (
            f"Give it the suffix {real}" if real else "Save it as a type that can be read, without a password"
        )
        raise LoadError(f"is {kind} by its first bytes, but its suffix is {suffix}", hint=hint)
    if fields and suffix in _WITH_FIELDS:
        return _WITH_FIELDS[suffix](data, fields=fields)
    return parser(data)


def _may_show_html(suffix: str) -> bool:
    return is_plain(suffix) or suffix == ".eml"

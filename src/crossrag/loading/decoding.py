"""Bytes -> text: by a mark, as UTF-8, as declared, or by the best guess. Binary data is refused."""

from __future__ import annotations

import codecs
import re

from crossrag.errors import LoadError

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


def decode(data: bytes, declared: str = "") -> str:
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

"""Text of any origin -> text that nothing later can stumble over: valid, plain lines, nothing invisible."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_LINE_BREAKS = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
# Terminal colours first, or their letters stay when the escape goes. Then C0 and C1 controls but tab and
# newline, zero-width characters without meaning (U+200C and U+200D have one), and Unicode tags, which can
# hide whole sentences from a reader but not from a language model.
_INVISIBLE = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\u00ad+\n?"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SURROGATES = re.compile(r"[\ud800-\udfff]")


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

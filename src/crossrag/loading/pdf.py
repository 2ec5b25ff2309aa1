"""PDF -> text page by page; empty where no page has any, as in a scan."""

from __future__ import annotations

import io
import logging

from crossrag.errors import LoadError

from .parsed import Parsed, join_pages, title_or_nothing
from .repair import clean_text

_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})


def parse_pdf(data: bytes) -> Parsed:
    """The text layer of a PDF.

    Raises:
        LoadError: It is encrypted or broken.
    """
    pages, title = _read(data)
    text, starts = join_pages(pages)
    return Parsed(text=text, title=title, page_starts=starts)


def _read(data: bytes) -> tuple[list[str], str]:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    # pypdf tells of every mended flaw; without a handler of its own that would go to the user's terminal.
    logging.getLogger("pypdf").addHandler(logging.NullHandler())
    try:
        reader = PdfReader(io.BytesIO(data))
        pages = [clean_text(page.extract_text().translate(_LIGATURES)).strip() for page in reader.pages]
        return pages, title_or_nothing(str(reader.metadata.title or "") if reader.metadata else "")
    except FileNotDecryptedError:
        raise LoadError("is encrypted with a password", hint="Save a copy without a password") from None
    except DependencyError:
        raise LoadError(
            "is encrypted with AES", hint="Install the package `cryptography`, or save a copy unencrypted"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a broken PDF makes pypdf raise whatever its damage leads to
        reason = clean_text(str(error))[:120] or type(error).__name__
        raise LoadError(f"is no PDF that can be read: {reason}", hint="Open it and save it again") from None

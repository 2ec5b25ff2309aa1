"""Picture of a text -> its lines, by RapidOCR; a TIFF of several pages keeps them. Opt-in by the extra `ocr`.

The models come with the package and are named by their paths, so that it never looks for others to download.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from crossrag.errors import LoadError

from .parsed import Parsed, join_pages, needed
from .repair import clean_text

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_EXTRA = "ocr"
_MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
_MOST_PIXELS = 50_000_000
"""Of one page: an A4 page at 600 dots per inch has 35 million."""
_MOST_PAGES = 500
_LONGEST_SIDE = 1280


def why_not() -> str:
    """Why pictures are left out; nothing where they can be read."""
    return "" if _is_installed() else f"a picture; with `pip install 'crossrag[{_EXTRA}]'` its text is read"


@cache
def _is_installed() -> bool:
    return find_spec("rapidocr") is not None


def prepare() -> None:
    """Load the engine and its models, which takes some 300 MB, so that no picture is charged for them.

    Raises:
        LoadError: `crossrag[ocr]` is not installed, or is another version.
    """
    if sys.modules.get("numpy", sys) is None:
        # A parsing process keeps it from those who could do without.
        del sys.modules["numpy"]
    _engine()


def parse_picture(data: bytes) -> Parsed:
    """The lines of text in a PNG, JPEG or TIFF file, in reading order as far as that can be seen.

    Raises:
        LoadError: It is none, is too large, or `crossrag[ocr]` is not installed.
    """
    image = needed("PIL.Image", package="rapidocr", extra=_EXTRA)
    try:
        with image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF")) as picture:
            prepare()
            pages = [_lines(_engine(), page) for page in _pages(image, picture)]
    except (LoadError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a broken picture raises whatever its damage leads to
        reason = clean_text(str(error))[:120] or type(error).__name__
        raise LoadError(
            f"is no picture that can be read: {reason}", hint="Open it and save it again"
        ) from None
    text, starts = join_pages(pages)
    notice = "its text was recognised in a picture, and may have been misread"
    return Parsed(text=text, page_starts=starts if len(pages) > 1 else (), notices=(notice,) if text else ())


def _pages(image: ModuleType, picture: Any) -> Iterator[Any]:
    import numpy as np

    count = getattr(picture, "n_frames", 1)
    if count > _MOST_PAGES:
        raise LoadError(f"has {count} pages, more than {_MOST_PAGES}", hint="Split it")
    for number in range(count):
        picture.seek(number)
        width, height = picture.size
        if width * height > _MOST_PIXELS:
            raise LoadError(
                f"has {width} x {height} pixels, more than {_MOST_PIXELS}", hint="Make it smaller"
            )
        # Transparent places are white, as they are on a page; the engine wants blue first.
        shown = picture.convert("RGBA")
        paper = image.new("RGBA", shown.size, "white")
        paper.alpha_composite(shown)
        yield np.asarray(paper.convert("RGB"))[:, :, ::-1]


def _lines(engine: Any, page: Any) -> str:
    found = engine(page)
    return clean_text("\n".join(found.txts or ())).strip()


@cache
def _engine() -> Any:
    rapidocr = needed("rapidocr", package="rapidocr", extra=_EXTRA)
    folder = Path(str(rapidocr.__file__)).parent / "models"
    threads = "EngineConfig.onnxruntime.{}_op_num_threads"
    settings: dict[str, Any] = {
        "Global.log_level": "critical",
        # Lines are looked for in a picture made smaller, never larger: memory is bounded whatever its shape.
        "Det.limit_type": "max",
        "Det.limit_side_len": _LONGEST_SIDE,
        # The same text from the same picture, whatever the machine; several files are read at once anyway.
        threads.format("intra"): 1,
        threads.format("inter"): 1,
    }
    for part, name in _MODELS.items():
        if not (folder / name).is_file():
            raise LoadError(
                f"needs {name}, which this version of rapidocr does not hold",
                hint=f"pip install --upgrade 'crossrag[{_EXTRA}]'",
            )
        settings[f"{part}.model_path"] = str(folder / name)
    return rapidocr.RapidOCR(params=settings)

"""Word documents and PowerPoint presentations -> Markdown; slides are kept as pages.

Pictures are left out, links outside the file are not followed.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

from crossrag.errors import LoadError

from .archives import OFFICE_HINT, check_archive
from .markup import as_markdown, first_heading
from .parsed import Parsed, join_pages, needed, title_or_nothing
from .repair import clean_text

_STYLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh"


def parse_word(data: bytes) -> Parsed:
    """Headings, lists, tables and footnotes of a Word document.

    Raises:
        LoadError: It is none, it would unpack to too much, or `crossrag[office]` is not installed.
    """
    check_archive(data, holds="word/", kind="Word document")
    mammoth = needed("mammoth", package="mammoth", extra="office")
    try:
        html = mammoth.convert_to_html(
            io.BytesIO(data),
            convert_image=lambda _: [],
            external_file_access=False,
            ignore_empty_paragraphs=True,
            include_embedded_style_map=False,
            style_map=_STYLES,
        ).value
        title = _core_title(data)
    except (LoadError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a broken document raises whatever its damage leads to
        raise _broken("Word document", error) from None
    text = as_markdown(html, [])
    return Parsed(text=text, title=title or first_heading(text), markdown=True)


def _core_title(data: bytes) -> str:
    tree = needed("defusedxml.ElementTree", package="defusedxml", extra="office")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if "docProps/core.xml" not in archive.namelist():
            return ""
        root = tree.fromstring(archive.read("docProps/core.xml"))
    return title_or_nothing(root.findtext("{http://purl.org/dc/elements/1.1/}title"))


def parse_presentation(data: bytes) -> Parsed:
    """Titles, text, tables and notes, slide by slide; hidden slides too.

    Raises:
        LoadError: It is none, it would unpack to too much, or `crossrag[office]` is not installed.
    """
    check_archive(data, holds="ppt/", kind="PowerPoint presentation")
    pptx = needed("pptx", package="python-pptx", extra="office")
    try:
        deck = pptx.Presentation(io.BytesIO(data))
        slides = [clean_text("\n\n".join(_blocks(slide))).strip() for slide in deck.slides]
        title = title_or_nothing(deck.core_properties.title)
    except (LoadError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a broken presentation raises whatever its damage leads to
        raise _broken("PowerPoint presentation", error) from None
    text, starts = join_pages(slides)
    names = tuple(f"slide {number}" for number in range(1, len(starts) + 1))
    return Parsed(
        text=text,
        title=title or first_heading(text),
        markdown=True,
        page_starts=starts,
        page_names=names,
    )


def _blocks(slide: Any) -> Iterator[str]:
    heading = slide.shapes.title
    if (
        heading is not None
        and heading.has_text_frame
        and (named := " ".join(heading.text_frame.text.split()))
    ):
        yield f"# {named}"
    for shape in _flat(slide.shapes):
        if heading is not None and shape.shape_id == heading.shape_id:
            continue
        if getattr(shape, "has_table", False):
            yield _table([[cell.text for cell in row.cells] for row in shape.table.rows])
        elif shape.has_text_frame and shape.text_frame.text.strip():
            yield "\n".join(_paragraphs(shape.text_frame))
    frame = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if frame is not None and (notes := frame.text.strip()):
        yield f"Notes: {notes}"


def _flat(shapes: Any) -> Iterator[Any]:
    """Shapes in order of reading, those of groups too."""
    for shape in shapes:
        yield from _flat(shape.shapes) if hasattr(shape, "shapes") else (shape,)


def _paragraphs(frame: Any) -> Iterator[str]:
    several = sum(bool(paragraph.text.strip()) for paragraph in frame.paragraphs) > 1
    for paragraph in frame.paragraphs:
        if line := " ".join(paragraph.text.split()):
            yield f"{'  ' * paragraph.level}- {line}" if several else line


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in row)} |" for row in rows]
    rule = f"|{' --- |' * len(rows[0])}" if rows else ""
    return "\n".join([*lines[:1], rule, *lines[1:]])


def _broken(kind: str, error: Exception) -> LoadError:
    reason = clean_text(str(error))[:120] or type(error).__name__
    return LoadError(f"is no {kind} that can be read: {reason}", hint=OFFICE_HINT)

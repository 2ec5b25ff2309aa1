"""Markdown with its front matter, and the main text of web pages as Markdown."""

from __future__ import annotations

import re
from html import unescape

from crossrag.errors import LoadError

from .decoding import decode
from .front_matter import split_front_matter
from .parsed import Parsed
from .repair import clean_text

_HTML_TITLE = re.compile(r"<title(?:\s[^<>]{0,200})?>([^<]{0,1000})", re.IGNORECASE)
_HTML_MAIN = re.compile(r"</?main[\s>]", re.IGNORECASE)
_HTML_CHARSET = re.compile(
    rb"<(?:meta[^>]{0,200}charset|\?xml[^>]{0,100}encoding)\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE
)
_NOISE = ["script", "style", "template", "noscript", "iframe", "svg", "video", "audio", "button", "select"]


def parse_markdown(data: bytes) -> Parsed:
    """Front matter gives title and metadata and is left out of the text; offsets count from behind it."""
    front = split_front_matter(clean_text(decode(data)))
    return Parsed(
        text=front.text,
        title=front.title or first_heading(front.text),
        markdown=True,
        metadata=front.metadata,
        notices=front.notices,
    )


def first_heading(text: str) -> str:
    """The first heading of level 1 of Markdown, in either style, outside fenced code."""
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


def parse_html(data: bytes) -> Parsed:
    """Main text as Markdown, so that headings survive; links as their text, no images, nothing fetched."""
    declared = _HTML_CHARSET.search(data[:2048])
    html = clean_text(decode(data, declared[1].decode("ascii", "replace") if declared else ""))
    text = main_text(html)
    named = _HTML_TITLE.search(html)
    return Parsed(text=text, title=unescape(named[1]) if named else first_heading(text), markdown=True)


def main_text(html: str) -> str:
    """What `<main>` holds; else all but the page's frame; else, where the frame is all there is, everything.

    Forms stay: some frameworks wrap the whole page in one. Only their buttons and lists of choices go.
    """
    tags = [tag.start() for tag in _HTML_MAIN.finditer(html)]
    frame = ["nav", "footer"]
    return (
        (len(tags) > 1 and as_markdown(html[tags[0] : tags[-1]], frame))
        or as_markdown(html, [*frame, "aside"], site_header=False)
        or as_markdown(html, [])
    )


def as_markdown(html: str, without: list[str], *, site_header: bool = True) -> str:
    """HTML as clean Markdown, leaving out elements by CSS selector and, if asked, the header of a site.

    Raises:
        LoadError: It is no HTML that can be read.
    """
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

"""Makes the PDF of the user guide, src/crossrag/examples/quick-reference.pdf; the same bytes every time.

    python scripts/make_example_pdf.py

Writes the few objects of such a file by itself, with fonts that every reader has; needs no package.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

OUT = Path(__file__).parent.parent / "src" / "crossrag" / "examples" / "quick-reference.pdf"
TITLE = "crossrag quick reference"
DATE = "D:20260101000000Z"
WIDTH, HEIGHT, MARGIN = 595, 842, 62

PAGES = (
    """\
# crossrag quick reference
This sheet lists the commands, options and settings of crossrag. The rest of the user guide explains them.

## Commands
crossrag ingest PATH... makes the index equal to the files: new, changed and deleted ones.
crossrag search QUERY prints the most relevant passages with their relevance.
crossrag ask QUESTION answers a question with citations, or says that the documents do not contain an answer.
crossrag status lists the documents in the index.
crossrag doctor checks settings, models and index.
crossrag config show prints every setting, its value and its origin.
crossrag demo indexes the user guide and asks it three questions.

## Options of several commands
The option --index FOLDER, or -i FOLDER, chooses the folder of the index.
The option --config FILE reads a settings file in place of crossrag.toml.
The option --set SECTION.KEY=VALUE changes one setting for one call and may be repeated.
The option --where KEY=VALUE keeps only chunks whose metadata has this value.
The option --json prints one JSON object on standard output.
The option --help, or -h, describes a command.

## Options of single commands
ingest --rebuild throws the whole index away first.
search --top-k NUMBER, or -k NUMBER, says how many passages are shown.
search --explain shows what each stage said of each passage.
ask --show-context prints the passages that the answer was written from.

## Options before the command
crossrag --version prints the version.
crossrag --debug COMMAND shows the traceback of an error.
""",
    """\
## Settings and their defaults
index.path is .crossrag: the folder of the index.
index.store is edge: the store.
embedder.model is onnx:bundled: the dense embedding model.
embedder.threads is 0: all cores.
sparse.model is bm25: the sparse encoder.
sparse.language is english: the stemmer and the list of common words.
sparse.average_length is 80: the typical number of terms of a chunk.
chunking.size is 800: the longest chunk.
chunking.overlap is 150: what neighbouring chunks share at most.
chunking.unit is characters: what size and overlap count; tokens is the other choice.
retrieval.fetch_k is 100: how many passages each leg fetches.
retrieval.rrf_k is 60: the constant of reciprocal rank fusion.
reranking.model is progressive:bundled: the cross-encoder; none switches it off.
reranking.depth is 100: how many candidates the cross-encoder reads.
reranking.top_k is 6: how many passages are kept.
reranking.threshold is 0.03: the least relevance for an answer.
reranking.deadline is empty: no limit on the seconds for reranking.
reranking.threads is 0: all cores.
context.token_budget is 2000: the most tokens of context.
generator.model is extractive: who writes the answer; openai:MODEL is the other choice.
openai.base_url is empty: the address of OpenAI itself.
openai.api_key is empty: the key is taken from OPENAI_API_KEY.
openai.temperature is 0: the randomness of the language model.
openai.timeout is 60: seconds without a word before crossrag gives up.
openai.max_retries is 2: further tries before the first piece of the answer.
openai.max_tokens is empty: the longest answer is the model's own limit.

## Where a setting comes from
Later places win: defaults, user file, crossrag.toml, environment variables, options of the command.
The environment variable of reranking.top_k is CROSSRAG_RERANKING__TOP_K, with two underscores in the middle.
""",
    """\
## Exit codes
0: success, also when the documents hold no answer.
1: something unexpected happened.
2: the call was wrong.
3: the index cannot be read or written.
4: a model is missing or damaged, or an optional package is not installed.
5: the language model failed.
6: some files could not be read; all others were indexed.
7: a setting is wrong, or the index was built with other settings.
130: interrupted with Ctrl-C.

## Suffixes of files that are read
Plain text: .txt, .text, .log, .rst.
Markdown: .md, .markdown, .mdown.
HTML: .html, .htm, .xhtml.
PDF with a text layer: .pdf.

## Settings that need a rebuild of the index
A change of embedder.model, sparse.language, sparse.average_length or any setting of chunking needs a rebuild.
A change of retrieval, reranking, context, generator or openai takes effect at the next question.

## What lies in the folder of an index
The folder shard holds the passages and their vectors.
The file manifest.sqlite lists the documents that are in the index as a whole.
The file fingerprint.json says with which embedder, BM25 settings and chunking the index was built.
The file holder.json names the process that has the index open.
""",
)


@dataclass(frozen=True, slots=True)
class _Style:
    font: str
    size: float
    before: float
    """Points of space above."""
    columns: int


HEAD = _Style("F2", 20, 0, 40)
SUBHEAD = _Style("F2", 13, 12, 60)
BODY = _Style("F1", 10.5, 3.5, 88)


def pdf(pages: Sequence[str]) -> bytes:
    """A whole file: catalogue, pages, two fonts, and the contents of each page."""
    first = 6
    fonts = "/Resources << /Font << /F1 3 0 R /F2 4 0 R >> >>"
    kids = " ".join(f"{first + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R /Lang (en) >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        _font("Helvetica"),
        _font("Helvetica-Bold"),
        f"<< /Title ({TITLE}) /CreationDate ({DATE}) /ModDate ({DATE}) >>",
    ]
    for number, text in enumerate(pages):
        content = "\n".join(_drawn(text, number + 1))
        box, place = f"/MediaBox [0 0 {WIDTH} {HEIGHT}]", first + 2 * number + 1
        objects += [
            f"<< /Type /Page /Parent 2 0 R {box} /Contents {place} 0 R {fonts} >>",
            f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        ]
    return _assembled(objects)


def _assembled(objects: Sequence[str]) -> bytes:
    """Numbered objects, then the table of where each begins."""
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {size} /Root 1 0 R /Info 5 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    ).encode("ascii")


def _font(name: str) -> str:
    return f"<< /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>"


def _drawn(text: str, number: int) -> Iterator[str]:
    """Operators that put a page's lines in their places."""
    y: float = HEIGHT - MARGIN
    for line in filter(None, text.splitlines()):
        style = SUBHEAD if line.startswith("## ") else HEAD if line.startswith("# ") else BODY
        y -= style.before
        for piece in textwrap.wrap(line.lstrip("# "), style.columns, break_on_hyphens=False):
            y -= style.size * 1.3
            yield _shown(piece, style.font, style.size, MARGIN, y)
    if y < MARGIN:
        raise SystemExit(f"page {number} is too full by {MARGIN - y:.0f} points")
    yield _shown(f"{TITLE}, page {number} of {len(PAGES)}", "F1", 8, MARGIN, 36)


def _shown(text: str, font: str, size: float, x: float, y: float) -> str:
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /{font} {size:g} Tf {x:g} {y:.1f} Td ({escaped}) Tj ET"


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--out", type=Path, default=OUT)
    out: Path = parser.parse_args().out
    out.write_bytes(pdf(PAGES))
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()

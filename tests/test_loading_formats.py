"""Office files, tables, JSON, mail, source code: what a reader and a citation need of each is kept."""

from __future__ import annotations

import datetime
import io
import sys
import zipfile
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from crossrag.chunking import split
from crossrag.errors import LoadError
from crossrag.loading import load_bytes
from crossrag.types import Chunk, Document


def parse(data: bytes | str, suffix: str, **options: Any) -> Document:
    raw = data.encode() if isinstance(data, str) else data
    return load_bytes(raw, suffix=suffix, document_id="id", source="a" + suffix, **options)


def locations(document: Document, size: int = 60) -> list[tuple[str, str]]:
    chunks = split(document, size=size, overlap=0)
    for chunk in chunks:
        payload = chunk.payload()
        assert Chunk.from_payload(chunk.id, payload) == chunk
        assert document.text[chunk.start : chunk.end] == chunk.text
    return [(chunk.location, chunk.text) for chunk in chunks]


# --- reStructuredText and source code ---------------------------------------------------------------------


def test_restructured_titles_become_headings() -> None:
    text = (
        "========\nHandbook\n========\n\nIntro.\n\nLeave\n-----\nDays.\n\n"
        "Sick *leave*\n~~~~~~~~~~~~\nCall.\n\nPay\n---\n::\n\n  code\n"
    )
    document = parse(text, ".rst")
    assert document.title == "Handbook"
    assert document.text.startswith(
        "# Handbook\n\nIntro.\n\n## Leave\nDays.\n\n### Sick *leave*\nCall.\n\n## Pay\n"
    )
    assert ("a.rst, Handbook > Leave > Sick leave") in [place for place, _ in locations(document, 30)]


@pytest.mark.parametrize(
    "text",
    [
        "Title\n==\n",
        "text\n\n----\n\nmore\n",
        "a line\nof prose\n========\n",
        "  indented\n========\n",
        "----",
        "\n\n=====\n",
    ],
)
def test_what_is_no_restructured_title_stays(text: str) -> None:
    assert parse(text, ".rst").text == text


@pytest.mark.parametrize(
    ("suffix", "language"), [(".py", "python"), (".TS", "typescript"), (".h", "c"), (".rs", "rust")]
)
def test_source_code_keeps_its_lines_and_names_its_language(suffix: str, language: str) -> None:
    code = "# not a heading\ndef f(x):\n\treturn x  # [1]\n"
    document = parse(code, suffix)
    assert (document.text, document.markdown, document.metadata) == (code, False, {"language": language})


# --- office -----------------------------------------------------------------------------------------------


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def word_file(*body: str, relations: str = "", **parts: str) -> bytes:
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{identity}"><w:name w:val="{name}"/></w:style>'
        for identity, name in (("T", "Title"), ("H", "heading 1"))
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(
            "word/document.xml", f"<w:document {W}><w:body>{''.join(body)}</w:body></w:document>"
        )
        archive.writestr("word/styles.xml", f"<w:styles {W}>{styles}</w:styles>")
        archive.writestr(
            "word/_rels/document.xml.rels", f'<Relationships xmlns="{PACKAGE}">{relations}</Relationships>'
        )
        for name, content in parts.items():
            archive.writestr(name.replace("__", "/") + ".xml", content)
    return out.getvalue()


def paragraph(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


def test_a_word_document_keeps_headings_and_tables() -> None:
    rows = "".join(
        f"<w:tr><w:tc>{paragraph(left)}</w:tc><w:tc>{paragraph(right)}</w:tc></w:tr>"
        for left, right in (("Kind", "Days"), ("Sick", "10"))
    )
    document = parse(
        word_file(
            paragraph("Staff handbook", "T"),
            paragraph("Leave", "H"),
            paragraph("Ask early."),
            f"<w:tbl>{rows}</w:tbl>",
        ),
        ".docx",
    )
    assert document.title == "Staff handbook"
    assert "# Leave\n\nAsk early.\n\n" in document.text
    assert "| Kind | Days |\n| ---- | ---- |\n| Sick | 10   |" in document.text
    assert any(place.startswith("a.docx, ") and place.endswith("Leave") for place, _ in locations(document))


def test_the_title_of_a_word_document_is_that_of_its_properties() -> None:
    core = '<c xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{}</dc:title></c>'
    for title, expected in (("Leave policy", "Leave policy"), ("Microsoft Word - draft1.docx", "Handbook")):
        data = word_file(paragraph("Handbook", "T"), docProps__core=core.format(title))
        assert parse(data, ".docx").title == expected


def test_pictures_outside_a_word_document_are_not_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text("canary", encoding="utf-8")
    drawing = (
        '<w:p><w:r><w:drawing><wp:inline xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/'
        'wordprocessingDrawing"><a:graphic xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main">'
        '<a:graphicData><pic:pic xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture">'
        f'<pic:blipFill><a:blip xmlns:r="{R}" r:link="r9"/></pic:blipFill></pic:pic></a:graphicData>'
        "</a:graphic></wp:inline></w:drawing></w:r></w:p>"
    )
    relation = f'<Relationship Id="r9" Type="{R}/image" TargetMode="External" Target="{secret.as_uri()}"/>'
    document = parse(word_file(paragraph("words"), drawing, relations=relation), ".docx")
    assert document.text == "words"


def slides() -> bytes:
    from pptx import Presentation
    from pptx.util import Inches

    deck = Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text = "Roadmap 2027"
    first.placeholders[1].text = "Faster search\nFewer clicks"
    first.placeholders[1].text_frame.paragraphs[1].level = 1
    first.notes_slide.notes_text_frame.text = "Mention the budget."
    second = deck.slides.add_slide(deck.slide_layouts[6])
    table = second.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for row, cells in enumerate((("Quarter", "Goal"), ("Q3", "Beta"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "Grouped words"
    deck.slides.add_slide(deck.slide_layouts[6])
    out = io.BytesIO()
    deck.save(out)
    return out.getvalue()


def test_a_citation_names_the_slide() -> None:
    document = parse(slides(), ".pptx")
    assert document.text == (
        "# Roadmap 2027\n\n- Faster search\n  - Fewer clicks\n\nNotes: Mention the budget.\n\n"
        "| Quarter | Goal |\n| --- | --- |\n| Q3 | Beta |\n\nGrouped words\n\n"
    )
    assert document.title == "Roadmap 2027"
    assert document.page_names == ("slide 1", "slide 2", "slide 3")
    (first, talk), (second, plan) = locations(document, 800)
    assert (first, second) == ("a.pptx, slide 1", "a.pptx, slide 2")
    assert "clicks" in talk
    assert plan.startswith("| Quarter")


def workbook() -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    sheet.title = "Q3"
    for row in (
        ("Team", "Budget", "Due", "Share"),
        ("Red\nteam", 1200.0, datetime.date(2026, 9, 30), 0.25),
        (None, None, None, None),
        ("Blue", 0, None, True),
    ):
        sheet.append(row)
    notes = book.create_sheet("Notes & more")
    notes["B7"] = "A lonely remark"
    book.create_sheet("Empty")
    book.properties.title = "Budget of 2026"
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def test_a_citation_names_the_sheet_and_a_row_its_columns() -> None:
    document = parse(workbook(), ".xlsx")
    assert document.text == (
        "Team: Red team; Budget: 1200; Due: 2026-09-30; Share: 0.25\nTeam: Blue; Budget: 0; Share: True\n\n"
        "A lonely remark\n\n"
    )
    assert document.title == "Budget of 2026"
    assert document.page_names == ("sheet Q3", "sheet Notes & more", "sheet Empty")
    assert [place for place, _ in locations(document)] == [
        "a.xlsx, sheet Q3",
        "a.xlsx, sheet Q3",
        "a.xlsx, sheet Notes & more",
    ]
    assert parse(workbook(), ".xlsx", fields=["Due", "Team"]).text.startswith(
        "Due: 2026-09-30; Team: Red team\nTeam: Blue"
    )


@pytest.mark.parametrize(
    ("suffix", "module"), [(".docx", "mammoth"), (".pptx", "pptx"), (".xlsx", "openpyxl")]
)
def test_a_missing_extra_is_named(suffix: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {".docx": word_file(paragraph("x")), ".pptx": slides(), ".xlsx": workbook()}[suffix]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LoadError, match=r"needs the package .*\. pip install 'crossrag\[office\]'"):
        parse(data, suffix)


# --- tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("name,role\nAnna,nurse\n", ["name: Anna; role: nurse"]),
        ("name;price\nBolt;1,50\nNut;0,20\n", ["name: Bolt; price: 1,50", "name: Nut; price: 0,20"]),
        ('q,a\n"Two\nlines, one cell",yes\n', ["q: Two lines, one cell; a: yes"]),
        ("1,2\n3,4\n", ["1; 2", "3; 4"]),
        ("name,name\na,b\n", ["name; name", "a; b"]),
        ("only names,here\n", ["only names; here"]),
        ("a|b\n1|2\n", ["a: 1; b: 2"]),
        ("one column\nx\ny\n", ["one column", "x", "y"]),
        ("a,b\n1\n1,2,3\n,\n", ["a: 1", "a: 1; b: 2; 3"]),
        ("", []),
    ],
)
def test_every_row_says_what_its_cells_are(text: str, lines: list[str]) -> None:
    assert parse(text, ".csv").text == "\n".join(lines)


def test_chosen_columns_come_in_the_order_of_choice() -> None:
    table = "id\ttext\tteam\n7\tHello\tred\n"
    assert parse(table, ".tsv", fields=["team", "text", "none"]).text == "team: red; text: Hello"
    assert parse(table, ".tsv", fields=["none"]).text == "id: 7; text: Hello; team: red"


# --- JSON -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("json", "text"),
    [
        ('{"title": "T", "text": "Body.", "id": 7, "v": 1.10}', "T\nBody.\nid: 7\nv: 1.10"),
        ('[{"question": "Q?", "answer": "A."}, {"body": "B"}]', "Q?\nA.\n\nB"),
        ('{"a": {"b": ["x", "y"], "c": null, "d": true}}', "a.b: x, y\na.d: true"),
        ('{"a": [{"n": "x"}, {"n": "y"}]}', "a.n: x\na.n: y"),
        ('{"text": "t", "embedding": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, -9e5]}', "t"),
        ('"a string"', "a string"),
        ('["a", ["b"], 3]', "a\n\nb\n\n3"),
        ("{}", ""),
    ],
)
def test_json_becomes_lines_that_name_their_values(json: str, text: str) -> None:
    assert parse(json, ".json").text == text


def test_chosen_fields_of_json() -> None:
    lines = '{"a": {"b": "x"}, "c": "y", "l": [{"m": 1}, {"m": 2}]}\n\n{"c": "z"}\n'
    assert parse(lines, ".jsonl", fields=["c", "a.b", "l.m"]).text == "c: y\na.b: x\nl.m: 1, 2\n\nc: z"
    assert parse(lines, ".jsonl", fields=["none"]).text.endswith("\n\nc: z")


def test_a_line_that_is_no_json_is_named() -> None:
    with pytest.raises(LoadError, match=r"a\.jsonl: line 3 is no JSON: Expecting value"):
        parse('{"text": "one"}\n\nnot json\n', ".jsonl")


# --- mail -------------------------------------------------------------------------------------------------


def mail(**headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in headers.items():
        message[name] = value
    return message


def test_a_mail_gives_its_text_and_who_wrote_when() -> None:
    message = mail(
        From="Anna <anna@example.org>",
        To="b@example.org",
        Subject="Résumé",
        Date="Tue, 3 Nov 2026 09:00:00 +0100",
    )
    message.set_content("Please find it attached.\n")
    message.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="cv.pdf")
    document = parse(message.as_bytes(), ".eml")
    assert document.title == "Résumé"
    assert document.text == (
        "From: Anna <anna@example.org>\nTo: b@example.org\nDate: 2026-11-03T09:00:00+01:00\n"
        "Attachments: cv.pdf\n\nPlease find it attached.\n"
    )
    assert document.metadata == {
        "from": "Anna <anna@example.org>",
        "to": "b@example.org",
        "date": "2026-11-03T09:00:00+01:00",
    }


def test_a_mail_of_html_alone_is_read_as_a_page() -> None:
    message = mail(Subject="News")
    message.set_content(
        "<h1>News</h1><p>Two <b>things</b>.</p><img src='http://e.test/x.png'>", subtype="html"
    )
    document = parse(message.as_bytes(), ".eml")
    assert (document.markdown, document.text) == (True, "# News\n\nTwo **things**.")


# --- wrong suffixes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "suffix", "told"),
    [
        (
            b"%PDF-1.4\n",
            ".txt",
            "is a PDF by its first bytes, but its suffix is .txt. .*suffix .pdf.",
        ),
        (b"\x89PNG\r\n\x1a\n", ".md", "is a PNG picture"),
        (b"{\\rtf1 words}", ".docx", "is a Rich Text file"),
        (b"<!DOCTYPE html><p>Log in", ".pdf", "is a web page by its first bytes.*suffix .html"),
    ],
)
def test_a_wrong_suffix_is_said(data: bytes, suffix: str, told: str) -> None:
    with pytest.raises(LoadError, match=told):
        parse(data, suffix)


def test_a_page_shown_as_text_is_text() -> None:
    assert parse("<html>\n<p>an example", ".txt").text == "<html>\n<p>an example"
    assert parse("<html><p>x", ".htm").text == "x"

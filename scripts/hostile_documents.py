"""Hostile PDF and office files, byte by byte: what no library would write."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator

MIB = 2**20
_KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_KIND}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_KIND}.worksheet+xml"/></Types>'
)
_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


# --- PDF --------------------------------------------------------------------------------------------------


def pdf(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalog."""
    out, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        trailer,
        start,
    )
    return bytes(out)


def stream(data: bytes, entries: bytes = b"") -> bytes:
    """A stream object."""
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), entries, data)


CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def page(content: int, extra: bytes = b"") -> bytes:
    """A page whose content is the object of that number and whose font is object 3."""
    return (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> %s >>"
        b" /Contents %d 0 R >>" % (extra, content)
    )


def small_pdf(*texts: str) -> bytes:
    """A whole PDF with one line on each page."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(texts)))
    objects = [CATALOG, b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(texts)), FONT]
    for number, text in enumerate(texts):
        objects += [page(5 + 2 * number), stream(b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % text.encode())]
    return pdf(*objects)


def zeros(size: int) -> bytes:
    """So many zero bytes, deflated, without deflating them all."""
    press = zlib.compressobj(9)
    press.compress(bytes(MIB))
    press.flush(zlib.Z_FULL_FLUSH)
    block = press.compress(bytes(MIB)) + press.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + block * (size // MIB) + b"\x03\x00" + b"\0\0\0\1"


def _one_page(
    content: bytes, *, pages: bytes = b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>", font: bytes = FONT
) -> bytes:
    return pdf(CATALOG, pages, font, page(5), content)


def pdfs() -> Iterator[tuple[str, bytes]]:
    """Circles, depths, lies and bombs in PDF."""
    line = stream(b"BT /F1 12 Tf 72 720 Td (x) Tj ET")
    whole = small_pdf("First page", "Second page")
    yield "cyclic-pages.pdf", pdf(CATALOG, b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>")
    yield (
        "cyclic-parents.pdf",
        pdf(
            CATALOG,
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 /Parent 3 0 R >>",
            b"<< /Type /Pages /Kids [2 0 R] /Count 1 >>",
        ),
    )
    kids = b"<< /Type /Pages /Kids [" + b"4 0 R " * 1_000_000 + b"] /Count 1000000 >>"
    yield "million-pages.pdf", _one_page(line, pages=kids)
    yield "million-declared.pdf", _one_page(line, pages=b"<< /Type /Pages /Kids [4 0 R] /Count 1000000 >>")
    yield "flate-2gb.pdf", _one_page(stream(zeros(2048 * MIB), b"/Filter /FlateDecode"))
    twice = zlib.compress(zeros(2048 * MIB), 9)
    yield "flate-twice.pdf", _one_page(stream(twice, b"/Filter [/FlateDecode /FlateDecode]"))
    yield "run-length.pdf", _one_page(stream(b"\x81x" * 4_000_000, b"/Filter /RunLengthDecode"))
    yield "ascii85.pdf", _one_page(stream(b"z" * 8_000_000 + b"~>", b"/Filter /ASCII85Decode"))
    yield "length-lie.pdf", _one_page(b"<< /Length 99999999999 >>\nstream\nBT (x) Tj ET\nendstream")
    yield "operators.pdf", _one_page(stream(b"BT /F1 12 Tf " + b"(x) Tj " * 2_000_000 + b"ET"))
    yield "nested-arrays.pdf", _one_page(stream(b"[" * 1_000_000))
    yield "nested-object.pdf", pdf(CATALOG, b"[" * 500_000)
    yield (
        "self-drawing.pdf",
        pdf(
            CATALOG,
            b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
            FONT,
            page(5, b"/XObject << /X 6 0 R >>"),
            stream(b"/X Do"),
            stream(
                b"/X Do /X Do",
                b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 6 0 R >> >>",
            ),
        ),
    )
    deep = [b"<< /Type /Pages /Kids [%d 0 R] /Count 1 >>" % (number + 3) for number in range(20_000)]
    yield "deep-tree.pdf", pdf(CATALOG, *deep, b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>")
    ranges = (
        b"1 begincodespacerange <0000> <FFFF> endcodespacerange\n"
        b"1 beginbfrange\n<00000000> <FFFFFFFF> <0041>\nendbfrange"
    )
    mapped = b"<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /ToUnicode 6 0 R >>"
    yield (
        "map-of-everything.pdf",
        pdf(CATALOG, b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>", mapped, page(5), line, stream(ranges)),
    )
    yield "xref-loop.pdf", whole.replace(b"/Root 1 0 R ", b"/Root 1 0 R /Prev %d " % whole.rindex(b"xref\n0"))
    yield "xref-nowhere.pdf", whole.replace(b"startxref\n", b"startxref\n9")
    yield "cut.pdf", whole[: len(whole) // 2]
    yield "header-only.pdf", b"%PDF-1.7\n"
    yield "noise.pdf", b"%PDF-1.7\n" + random.Random(2).randbytes(200_000)  # noqa: S311 - the same noise every time
    yield "self-reference.pdf", pdf(b"1 0 R", b"2 0 R")
    yield (
        "encrypted.pdf",
        pdf(
            CATALOG,
            b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
            FONT,
            page(5),
            line,
            b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % (b"41" * 32, b"42" * 32),
            trailer=b"/Encrypt 6 0 R /ID [<00><00>]",
        ),
    )


# --- office -----------------------------------------------------------------------------------------------


def office_file(name: str, content: str | bytes, *more: tuple[str, str | bytes]) -> bytes:
    """An office archive with this part and what leads to it."""
    out = io.BytesIO()
    kind = f"{_RELATIONS}/officeDocument"
    target = f'<Relationship Id="r" Type="{kind}" Target="{name}"/>'
    lead = f'<Relationships xmlns="{_PACKAGE}">{target}</Relationships>'
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, data in (("[Content_Types].xml", _TYPES), ("_rels/.rels", lead), (name, content), *more):
            archive.writestr(zipfile.ZipInfo(part), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def word(body: str, *more: tuple[str, str | bytes], before: str = "") -> bytes:
    """A Word document with this body."""
    return office_file(
        "word/document.xml", f"{before}<w:document {_W}><w:body>{body}</w:body></w:document>", *more
    )


def paragraph(text: str) -> str:
    """A paragraph of a Word document."""
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def bomb(name: str, size: int, *, declared: int) -> bytes:
    """An archive whose part unpacks to `size` zeros and says that it has `declared` bytes."""
    packed = zeros(size)[2:-4]
    encoded = name.encode()
    fixed = (20, 0, 8, 0, 33, 0, len(packed), declared, len(encoded))
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", *fixed, 0) + encoded + packed
    central = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, *fixed, 0, 0, 0, 0, 0, 0) + encoded
    return local + central + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)


def sheet(rows: str) -> bytes:
    """An Excel workbook with one sheet of these rows."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relation = f'<Relationship Id="r1" Type="{_RELATIONS}/worksheet" Target="worksheets/sheet1.xml"/>'
    return office_file(
        "xl/workbook.xml",
        f'<workbook xmlns="{main}" xmlns:r="{_RELATIONS}"><sheets>'
        '<sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
        ("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{_PACKAGE}">{relation}</Relationships>'),
        ("xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>'),
    )


def _laughs(levels: int = 9) -> str:
    tower = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, levels + 1))
    return f"<!DOCTYPE l [<!ENTITY a0 'ha'>{tower}]>"


def office_files() -> Iterator[tuple[str, bytes]]:
    """Bombs, entities, locks and far cells in Word, Excel and PowerPoint files."""
    yield "bomb.docx", bomb("word/document.xml", 2048 * MIB, declared=2**31)
    yield "bomb.xlsx", bomb("xl/sharedStrings.xml", 2048 * MIB, declared=2**31)
    yield "bomb.pptx", bomb("ppt/presentation.xml", 2048 * MIB, declared=2**31)
    yield "small-lie.docx", bomb("word/document.xml", 1024 * MIB, declared=1000)
    yield "parts.docx", office_file("word/document.xml", "", *((f"word/{n}", "") for n in range(25_000)))
    yield "laughs.docx", word(paragraph("&a9;"), before=_laughs())
    yield (
        "laughs-utf16.docx",
        office_file(
            "word/document.xml",
            f"{_laughs()}<w:document {_W}><w:body>{paragraph('&a9;')}</w:body></w:document>".encode("utf-16"),
        ),
    )
    yield (
        "passwd.docx",
        word(paragraph("&e;"), before="<!DOCTYPE l [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>"),
    )
    yield "core-laughs.docx", word(paragraph("x"), ("docProps/core.xml", f"{_laughs()}<l>&a9;</l>"))
    yield "deep.docx", word("<w:tbl><w:tr><w:tc>" * 100_000)
    yield (
        "deep-whole.docx",
        word("<w:sdt><w:sdtContent>" * 3_000 + paragraph("x") + "</w:sdtContent></w:sdt>" * 3_000),
    )
    yield "paragraphs.docx", word(paragraph("words") * 300_000)
    yield "traversal.docx", word(paragraph("words"), ("../../../../tmp/owned.txt", "x"), ("/etc/owned", "x"))
    yield "cut.docx", word(paragraph("words"))[:-200]
    yield "broken-xml.docx", word("<w:p><w:r>")
    yield "no-relations.docx", office_file("word/other.xml", "<x/>")
    yield "far-cell.xlsx", sheet('<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>')
    yield (
        "far-cells.xlsx",
        sheet("".join(f'<row r="{n}"><c r="XFD{n}"><v>1</v></c></row>' for n in range(1, 3_000))),
    )
    yield "no-such-string.xlsx", sheet('<row r="1"><c r="A1" t="s"><v>99999</v></c></row>')
    yield "date.xlsx", sheet('<row r="1"><c r="A1" t="d"><v>99999-99-99</v></c></row>')
    yield "cut.xlsx", sheet("")[:-100]
    yield "no-sheets.xlsx", office_file("xl/workbook.xml", "<workbook/>")
    yield "no-slides.pptx", office_file("ppt/presentation.xml", "<presentation/>")
    yield "laughs.pptx", office_file("ppt/presentation.xml", f"{_laughs()}<p>&a9;</p>")
    encrypted = bytearray(word(paragraph("secret")))
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):  # the flag for encryption in every header
        at = encrypted.find(mark)
        while at >= 0:
            encrypted[at + (6 if mark[2] == 3 else 8)] |= 1
            at = encrypted.find(mark, at + 4)
    yield "locked.docx", bytes(encrypted)

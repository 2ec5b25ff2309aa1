"""An index as one file, and back, without embedding again: a ZIP of JSON lines and numpy arrays.

Written whole or not at all. Read twice: checked to the last byte before the first is taken over. Nothing is
unpacked to disk, and no name in the archive is used as a path.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import chunking
from .errors import FingerprintError, UsageError
from .manifest import Entry
from .types import Chunk, SparseVector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .index import Index
    from .types import StoredPoint

    Page = tuple[list[Chunk], NDArray[np.float32], list[SparseVector]]

_FORMAT = "crossrag-index-1"
_HEADER = "index.json"
_DOCUMENTS = "documents.jsonl"
_PAGE = 2_000
"""Points in one entry of the archive."""
_MOST_ENTRIES = 200_000
_MOST_BYTES = 1 << 30
"""Of one entry, unpacked."""
_HINT = "Export the index again, and copy the file whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an archive holds."""

    documents: int
    chunks: int
    fingerprint: Mapping[str, str]


def export(index: Index, target: Path, *, progress: Callable[[int, int], None] = lambda *_: None) -> Contents:
    """Write the index into one file, which appears when it is whole.

    Args:
        index: It must exist; what a run left unfinished is not exported.
        target: The file; one that is there is replaced.
        progress: Called with the number of chunks written and of all.

    Raises:
        UsageError: The target is a folder, or its folder does not exist.
    """
    _check_target(target)
    with index.only_writer():
        entries = list(index.manifest.entries().values())
        current = {(entry.id, entry.generation) for entry in entries}
        points = (
            point
            for point in index.store.scan(limit=512, with_vectors=True)
            if (point.chunk.document_id, point.chunk.generation) in current
        )
        total = sum(entry.chunks for entry in entries)
        temporary = target.with_name(f".{target.name}.new")
        try:
            contents = _written(
                temporary, entries, points, index.fingerprint, lambda done: progress(done, total)
            )
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return contents


def _check_target(target: Path) -> None:
    if target.is_dir():
        raise UsageError(
            f"{target} is a folder", hint=f"Name the file to write, such as {target / 'backup.crossrag'}"
        )
    if not target.parent.is_dir():
        raise UsageError(f"The folder {target.parent} does not exist", hint="Make it first, or name another")


def load(index: Index, source: Path, *, progress: Callable[[int, int], None] = lambda *_: None) -> Contents:
    """Take an exported index over into an empty one; a call that was cut short can be made again.

    Args:
        index: Where there is none, it is made.
        source: A file that `export` wrote.
        progress: Called with the number of chunks written and of all.

    Raises:
        UsageError: The archive is damaged or was tampered with, or the index is not empty.
        FingerprintError: It was built with other settings than the present ones.
        Either way nothing was written.
    """
    with _opened(source) as archive:
        fingerprint = archive.header.get("fingerprint")
        _check_fingerprint(source, fingerprint, index.fingerprint)
        archive.check()
        entries, total = archive.entries, archive.header["chunks"]
        with index.filling() as store:
            manifest = index.manifest
            manifest.begin({entry.generation: entry.id for entry in entries})
            done = 0
            for chunks, dense, sparse in archive.pages():
                store.upsert(chunks, dense, sparse)
                done += len(chunks)
                progress(done, total)
            store.flush()
            manifest.flip(entries)
    return Contents(documents=len(entries), chunks=done, fingerprint=index.fingerprint)


def _check_fingerprint(source: Path, stored: Any, expected: Mapping[str, str]) -> None:
    stored = stored if isinstance(stored, dict) else {}
    differing = sorted(part for part in {*stored, *expected} if stored.get(part) != expected.get(part))
    if differing:
        changes = "; ".join(f"{part}: {stored.get(part)} -> {expected.get(part)}" for part in differing)
        raise FingerprintError(
            f"{source} was built with other settings ({changes})",
            hint="Import it with the settings that it was made with",
        )


# --- writing ----------------------------------------------------------------------------------------------


def _written(
    target: Path,
    entries: list[Entry],
    points: Iterator[StoredPoint],
    fingerprint: Mapping[str, str],
    progress: Callable[[int], None],
) -> Contents:
    sums: dict[str, dict[str, Any]] = {}
    with target.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, _DOCUMENTS, _json_lines(map(_row, entries)), sums)
            done = pages = 0
            while part := list(islice(points, _PAGE)):
                lines = _json_lines({"point": point.chunk.id, **_rest(point)} for point in part)
                _add(archive, _points(pages), lines, sums)
                _add(archive, _dense(pages), _floats(part), sums)
                done, pages = done + len(part), pages + 1
                progress(done)
            header = {
                "format": _FORMAT,
                "fingerprint": dict(fingerprint),
                "documents": len(entries),
                "chunks": done,
                "pages": pages,
                "entries": sums,
            }
            archive.writestr(_info(_HEADER), json.dumps(header, indent=1))
        file.flush()
        os.fsync(file.fileno())
    return Contents(documents=len(entries), chunks=done, fingerprint=fingerprint)


def _add(archive: zipfile.ZipFile, name: str, data: bytes, sums: dict[str, dict[str, Any]]) -> None:
    sums[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    archive.writestr(_info(name), data)


def _info(name: str) -> zipfile.ZipInfo:
    """Without the time of day: the same index makes the same archive."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def _points(page: int) -> str:
    return f"points-{page:06d}.jsonl"


def _dense(page: int) -> str:
    return f"dense-{page:06d}.f32"


def _row(entry: Entry) -> dict[str, Any]:
    # How the file looked is of no use where the archive is read.
    return {name: value for name, value in asdict(entry).items() if name != "stamp"}


def _rest(point: StoredPoint) -> dict[str, Any]:
    assert point.sparse is not None  # noqa: S101 - asked for, so it is there
    return {
        "payload": point.chunk.payload(),
        "terms": list(point.sparse.indices),
        "weights": list(point.sparse.values),
    }


def _floats(points: list[StoredPoint]) -> bytes:
    import numpy as np

    rows = [point.dense for point in points if point.dense is not None]
    return np.stack(rows).astype("<f4").tobytes()


def _json_lines(rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode("ascii")


# --- checking and reading ---------------------------------------------------------------------------------


class _Archive:
    """A ZIP of which nothing is believed that was not checked."""

    def __init__(self, source: Path, zipped: zipfile.ZipFile) -> None:
        self._source = source
        self._zipped = zipped
        self.header = self._checked_header()
        self.entries = [self._entry(row) for row in self._lines(_DOCUMENTS)]

    def pages(self) -> Iterator[Page]:
        """Chunks and their vectors, page by page."""
        for number in range(self.header["pages"]):
            yield self._page(number)

    def check(self) -> None:
        """Read every page once, so that nothing turns out to be wrong when the first is written already.

        Raises:
            UsageError: It is not what it says it is.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for chunks, _, _ in self.pages():
            counts.update((chunk.document_id, chunk.generation) for chunk in chunks)
        expected = {(entry.id, entry.generation): entry.chunks for entry in self.entries}
        if counts != expected or len(self.entries) != self.header["documents"]:
            raise self.refusal("its chunks are not those of its documents")

    def refusal(self, reason: str) -> UsageError:
        """The error to raise."""
        return UsageError(f"{self._source} is refused: {reason}", hint=_HINT)

    def _checked_header(self) -> dict[str, Any]:
        infos = {info.filename: info for info in self._zipped.infolist()}
        if len(infos) != len(self._zipped.infolist()) or not 2 <= len(infos) <= _MOST_ENTRIES:
            raise self.refusal(f"it has {len(self._zipped.infolist())} entries, or one of them twice")
        for info in infos.values():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the writer did not say
            if info.flag_bits & 1 or kind not in {0, stat.S_IFREG} or info.is_dir():
                raise self.refusal(f"{info.filename[:80]!r} is no plain file")
            if info.file_size > _MOST_BYTES:
                raise self.refusal(f"{info.filename[:80]!r} is too large")
        if _HEADER not in infos:
            raise self.refusal(f"it has no {_HEADER}")
        header = self._json(self._zipped.read(_HEADER))
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise self.refusal("it is no index that this crossrag can read")
        sums, pages = header.get("entries"), header.get("pages")
        if not isinstance(sums, dict) or not isinstance(pages, int) or not 0 <= pages <= _MOST_ENTRIES:
            raise self.refusal(f"{_HEADER} is damaged")
        named = {_DOCUMENTS, *map(_points, range(pages)), *map(_dense, range(pages))}
        if odd := sorted((named ^ set(sums)) | (named ^ (set(infos) - {_HEADER}))):
            raise self.refusal(f"{odd[0][:80]!r} does not belong in it, or is missing")
        for name in sorted(named):
            self._check_sum(name, sums[name])
        return header

    def _check_sum(self, name: str, expected: Any) -> None:
        made, size = hashlib.sha256(), 0
        with self._zipped.open(name) as file:
            while block := file.read(1 << 20):
                made.update(block)
                size += len(block)
        if expected != {"bytes": size, "sha256": made.hexdigest()}:
            raise self.refusal(f"{name} is not what its checksum says")

    def _json(self, text: bytes) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.refusal("it holds something that is no JSON") from None

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        with self._zipped.open(name) as file:
            for line in file:
                row = self._json(line)
                if not isinstance(row, dict):
                    raise self.refusal(f"{name} is damaged")
                yield row

    def _entry(self, row: dict[str, Any]) -> Entry:
        texts = [row.get(name) for name in ("id", "source", "content_hash", "generation")]
        chunks = row.get("chunks")
        if len(row) != 6 or not all(isinstance(text, str) and text for text in texts):
            raise self.refusal(f"{_DOCUMENTS} is damaged")
        if not isinstance(chunks, int) or chunks < 1 or not isinstance(row.get("metadata"), dict):
            raise self.refusal(f"{_DOCUMENTS} is damaged")
        return Entry(**row)

    def _page(self, number: int) -> Page:
        import numpy as np

        name = _points(number)
        rows = list(self._lines(name))
        data = self._zipped.read(_dense(number))
        floats = np.frombuffer(data[: len(data) // 4 * 4], dtype="<f4")
        if not rows or len(data) % (4 * len(rows)) or not np.isfinite(floats).all():
            raise self.refusal(f"{_dense(number)} does not fit {name}")
        try:
            chunks = [Chunk.from_payload(row["point"], row["payload"]) for row in rows]
            sparse = [SparseVector(tuple(row["terms"]), tuple(map(float, row["weights"]))) for row in rows]
            if not all(_is_genuine(chunk) for chunk in chunks):
                raise ValueError("ids do not fit")
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self.refusal(f"{name} holds chunks that no ingestion made") from None
        return chunks, floats.reshape(len(rows), -1), sparse


def _is_genuine(chunk: Chunk) -> bool:
    made = chunking.identify(chunk.document_id, chunk.generation, chunk.position, chunk.text)
    return chunk.id == made


@contextmanager
def _opened(source: Path) -> Iterator[_Archive]:
    """The archive with its names, sizes and checksums checked."""
    if not source.is_file():
        raise UsageError(f"{source} is no file", hint="Give a file that `crossrag export` wrote")
    try:
        with zipfile.ZipFile(source) as zipped:
            yield _Archive(source, zipped)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{source} is refused: {str(error)[:120]}", hint=_HINT) from None

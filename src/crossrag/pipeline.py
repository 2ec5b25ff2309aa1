"""Rag: ingest, search, ask, stream. The only place that joins stages and makes backends from settings."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from . import answering, chunking, context, indexing, loading, registry, reranking, retrieval
from .config import Settings, load_settings
from .errors import FingerprintError, StoreError, StoreLockedError, UsageError
from .manifest import Entry, Manifest
from .types import Answer, Chunk, Document, Done, Event, IngestReport, Ranking, Turn, Where

if TYPE_CHECKING:
    from .indexing import Progress
    from .protocols import Embedder, Generator, Reranker, SparseEncoder, Store


_CHUNK_TOKENIZER = registry.BUNDLED_MODELS / "progressive-reranker" / "tokenizer.json"
"""What `chunking.unit = "tokens"` counts: the tokens that the bundled reranker sees."""


class Rag:
    """One index and everything that works on it. Models and the store are opened at first use.

    A Rag holds the index for its process until it is closed; use it as a context manager, or call `close`.

    Args:
        settings: What is not given below is made from them.
        embedder: Any object of this shape, and so on; see `crossrag.protocols`.
        sparse_encoder: In place of `sparse.model`.
        reranker: In place of `reranking.model`.
        generator: In place of `generator.model`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        embedder: Embedder | None = None,
        sparse_encoder: SparseEncoder | None = None,
        reranker: Reranker | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.settings = settings
        given = {
            "embedder": embedder,
            "sparse_encoder": sparse_encoder,
            "reranker": reranker,
            "generator": generator,
        }
        # The cached properties below find what was given where they would keep what they make.
        self.__dict__.update({name: backend for name, backend in given.items() if backend is not None})

    @classmethod
    def open(cls, path: str | Path | None = None, **sections: Mapping[str, Any]) -> Self:
        """The index at `path`, which the first `ingest` makes.

        Args:
            path: Folder of the index; None for `index.path` of the settings.
            sections: Settings that win over files and environment: `reranking={"top_k": 3}`.

        Raises:
            ConfigError: A setting is unknown or has a wrong value.
        """
        arguments: dict[str, Mapping[str, Any]] = dict(sections)
        if path is not None:
            arguments["index"] = {**arguments.get("index", {}), "path": Path(path)}
        return cls(load_settings(arguments).settings)

    # --- documents -> chunks -> index

    def ingest(
        self,
        *paths: str | Path,
        rebuild: bool = False,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> IngestReport:
        """Make the index equal to the files under `paths`: new, changed and deleted ones.

        Documents that came from elsewhere stay. Unchanged files cost a hash.

        Args:
            paths: Files and folders.
            rebuild: Throw the whole index away first, what came from other paths too.
            progress: Called before each file.

        Raises:
            UsageError: A path does not exist, or there is none.
            StoreError: The index cannot be written.
            FingerprintError: The index was built with other settings.
        """
        roots = [_existing(Path(path)) for path in paths]
        if not roots:
            raise UsageError("Nothing to ingest", hint="Name a file or a folder")
        files, unknown = indexing.collect(roots)
        if not files and not unknown and (rebuild or not self.manifest.entries()):
            raise UsageError(
                f"There are no files in {', '.join(map(str, roots))}", hint="Name another folder"
            )
        if rebuild:
            self._drop()
        indexer = indexing.Indexer(
            store=self._writable_store(),
            manifest=self.manifest,
            embedder=self.embedder,
            sparse_encoder=self.sparse_encoder,
            split=self._split,
        )
        wanted = {file.document_id for file in files}
        entries = self.manifest.entries()
        gone = [known for known in entries if known not in wanted and indexing.is_below(known, roots)]
        return indexer.run(files, gone=gone, skipped=unknown, progress=progress)

    def documents(self) -> list[Entry]:
        """What is indexed, in order of source."""
        return [entry for entry in self.manifest.entries().values() if entry.complete]

    # --- query -> candidates -> reranked

    def search(
        self,
        query: str,
        *,
        top_k: int | None = None,
        where: Where | None = None,
        deadline: float | None = None,
    ) -> Ranking:
        """The best passages, most relevant first, those below the threshold too.

        Args:
            query: A question or a few words.
            top_k: How many; None for `reranking.top_k`.
            where: Keep only chunks whose metadata equals this.
            deadline: Seconds for reranking; None for `reranking.deadline`.

        Raises:
            UsageError: The query is empty or a filter key is malformed.
            IndexMissingError: Nothing was ingested yet.
        """
        ranking = self._rank(query, top_k=top_k, where=where, deadline=deadline)
        return _first(ranking, self.settings.reranking.top_k if top_k is None else top_k)

    # --- context -> answer

    def ask(self, question: str, *, history: Sequence[Turn] = (), where: Where | None = None) -> Answer:
        """The answer, whole. `status` is `no_answer` where the documents hold none.

        Raises:
            GeneratorError: The language model failed.
        """
        for event in self.stream(question, history=history, where=where):
            if isinstance(event, Done):
                return event.answer
        raise AssertionError("a stream ended without Done")

    def stream(
        self, question: str, *, history: Sequence[Turn] = (), where: Where | None = None
    ) -> Iterator[Event]:
        """Retrieved, then Delta and Cited as they come, then exactly one Done.

        Raises:
            GeneratorError: The language model failed; events given before remain valid.
        """
        settings = self.settings
        ranking = self._rank(question, where=where)
        kept = reranking.relevant(
            ranking.candidates, threshold=settings.reranking.threshold, top_k=settings.reranking.top_k
        )
        assembled = context.assemble(kept, token_budget=settings.context.token_budget)
        yield from answering.stream_answer(
            ranking.query,
            assembled,
            generator=self.generator,
            ranking=_first(ranking, settings.reranking.top_k),
            history=history,
        )

    # --- life

    def close(self) -> None:
        """Let go of the index; closing twice is fine."""
        for name in ("store", "manifest"):
            if (resource := self.__dict__.pop(name, None)) is not None:
                resource.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- backends, each made once and at first use

    @cached_property
    def embedder(self) -> Embedder:
        """From `embedder.model`."""
        return registry.load(
            "embedders", self.settings.embedder.model, threads=self.settings.embedder.threads
        )

    @cached_property
    def sparse_encoder(self) -> SparseEncoder:
        """From `sparse.model`."""
        sparse = self.settings.sparse
        return registry.load(
            "sparse_encoders", sparse.model, language=sparse.language, average_length=sparse.average_length
        )

    @cached_property
    def reranker(self) -> Reranker | None:
        """From `reranking.model`; None where that is `none`."""
        settings = self.settings.reranking
        if settings.model == "none":
            return None
        return registry.load("rerankers", settings.model, threads=settings.threads)

    @cached_property
    def generator(self) -> Generator:
        """From `generator.model`."""
        name = self.settings.generator.model
        if name.partition(":")[0] == "openai":
            openai = self.settings.openai
            return registry.load(
                "generators",
                name,
                render=answering.messages,
                api_key=openai.api_key.get_secret_value() if openai.api_key else None,
                **openai.model_dump(exclude={"api_key"}),
            )
        if self.reranker is None:
            raise UsageError(
                "The extractive answer needs a reranker",
                hint="Set reranking.model, or generator.model to openai:MODEL",
            )
        return registry.load("generators", name, reranker=self.reranker, embedder=self.embedder)

    @cached_property
    def store(self) -> Store:
        """The index, which must exist."""
        return self._opened_store(create=False)

    @cached_property
    def manifest(self) -> Manifest:
        """What is indexed."""
        return Manifest(self.settings.index.path / "manifest.sqlite")

    def _writable_store(self) -> Store:
        if "store" not in self.__dict__:
            self.__dict__["store"] = self._opened_store(create=True)
        return self.store

    def _opened_store(self, *, create: bool) -> Store:
        settings = self.settings
        cut = settings.chunking
        return registry.load(
            "stores",
            settings.index.store,
            path=settings.index.path,
            dimension=self.embedder.dimension,
            fingerprint={
                "format": "1",
                "embedder": self.embedder.fingerprint,
                "sparse": self.sparse_encoder.fingerprint,
                "chunking": chunking.fingerprint(cut.size, cut.overlap, cut.unit, _CHUNK_TOKENIZER),
            },
            create=create,
        )

    def _drop(self) -> None:
        """Only what an index consists of is removed, whatever else may lie in the folder."""
        path = self.settings.index.path
        if (path / "fingerprint.json").is_file():
            self._check_not_held()
        self.close()
        # The manifest first: without it nothing is taken for indexed, wherever this is cut short.
        for name in ("manifest.sqlite", "manifest.sqlite-wal", "manifest.sqlite-shm", "fingerprint.json"):
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path / "shard", ignore_errors=True)

    def _check_not_held(self) -> None:
        """An index that another process has open is not thrown away; a damaged one may be.

        Raises:
            StoreLockedError: Another process has it open.
        """
        try:
            self._writable_store()
        except StoreLockedError:
            raise
        except (FingerprintError, StoreError):
            return

    def _split(self, document: Document) -> Sequence[Chunk]:
        cut = self.settings.chunking
        return chunking.split(
            document, size=cut.size, overlap=cut.overlap, unit=cut.unit, tokenizer_file=_CHUNK_TOKENIZER
        )

    def _rank(
        self, query: str, *, top_k: int | None = None, where: Where | None, deadline: float | None = None
    ) -> Ranking:
        settings = self.settings
        query = loading.clean_text(query).strip()
        if not query:
            raise UsageError("The question is empty", hint="Write a question, or a few words to look for")
        store = self.store
        clock = _Clock()
        candidates = retrieval.retrieve(
            query,
            embedder=self.embedder,
            sparse_encoder=self.sparse_encoder,
            store=store,
            fetch_k=settings.retrieval.fetch_k,
            rrf_k=settings.retrieval.rrf_k,
            where=where,
        )
        clock.lap("retrieve")
        if self.reranker is None:
            return Ranking(query=query, candidates=tuple(candidates), timings=clock.laps)
        seconds = settings.reranking.deadline if deadline is None else deadline
        wanted = settings.reranking.top_k if top_k is None else top_k
        reranked = reranking.rerank(
            query,
            candidates,
            reranker=self.reranker,
            depth=max(settings.reranking.depth, wanted),
            top_k=wanted,
            deadline=None if seconds is None else time.monotonic() + seconds,
        )
        clock.lap("rerank")
        return Ranking(
            query=query,
            candidates=reranked.candidates,
            degraded=reranked.degraded,
            notices=reranked.notices,
            timings=clock.laps,
        )


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage], self._last = now - self._last, now


def _first(ranking: Ranking, count: int) -> Ranking:
    return replace(ranking, candidates=ranking.candidates[:count])


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UsageError(f"{path} does not exist", hint="Check the path")
    return path.resolve()

"""Rag: one index and everything that works on it. Makes backends from settings; `asking` joins the stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from . import adopting, asking, assembly, calibrating, loading, searching
from .config import Settings, load_settings
from .errors import UsageError
from .index import Index
from .planning import Selection
from .types import Answer, Done, Event, IngestReport, Ranking, Relevance, Turn, Where

if TYPE_CHECKING:
    from .indexing import Progress
    from .manifest import Entry, Manifest
    from .planning import Plan
    from .preparing import Engine
    from .protocols import Embedder, Generator, Grounder, Reranker, SparseEncoder, Store


class Rag:
    """One index and everything that works on it. Models and the store are opened at first use.

    A Rag holds the index for its process until it is closed; use it as a context manager, or call `close`.

    Args:
        settings: What is not given below is made from them.
        embedder: Any object of this shape, and so on, see `crossrag.protocols`; or LangChain's `Embeddings`.
        sparse_encoder: In place of `sparse.model`.
        reranker: In place of `reranking.model`.
        generator: In place of `generator.model`; or a chat model of LangChain's.
        grounder: In place of `verification.model`.
        complete: In place of the language model that rewrites and expands questions: prompt to text.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        embedder: Embedder | assembly.Embeddings | None = None,
        sparse_encoder: SparseEncoder | None = None,
        reranker: Reranker | None = None,
        generator: Generator | assembly.ChatModel | None = None,
        grounder: Grounder | None = None,
        complete: Callable[[str], str] | None = None,
    ) -> None:
        self.settings = settings
        given = {
            "embedder": None if embedder is None else assembly.given_embedder(embedder),
            "sparse_encoder": sparse_encoder,
            "reranker": reranker,
            "generator": None if generator is None else assembly.given_generator(generator),
            "grounder": grounder,
            "complete": complete
            or (None if settings.expansion.model else assembly.given_completion(generator)),
        }
        # The cached properties below find what was given where they would keep what they make.
        self._given = {name: backend for name, backend in given.items() if backend is not None}
        self.__dict__.update(self._given)
        self.index = self._index()
        """Store and manifest, and what keeps them equal to the documents."""

    def _index(self) -> Index:
        if self.settings.store == assembly.ADOPTED:
            return cast("Index", adopting.AdoptedIndex(self.settings, embedder=lambda: self.embedder))
        return Index(
            self.settings, embedder=lambda: self.embedder, sparse_encoder=lambda: self.sparse_encoder
        )

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

    @classmethod
    def adopt(
        cls,
        collection: str,
        *,
        url: str,
        embedder: str | Embedder | assembly.Embeddings,
        vector: str | None = None,
        sparse: str | None = None,
        **sections: Mapping[str, Any],
    ) -> Self:
        """A Qdrant collection that something else made, such as LangChain; it is read, never written.

        Args:
            collection: Its name; see the section `adopt` for other keys than LangChain's.
            url: `http://HOST:6333`.
            embedder: What its vectors were made with: a name as in `embedder.model`, or an object.
            vector: Name of its dense vector; None for the only one.
            sparse: Name of its sparse vector, if that was made as `sparse.model` does.
            sections: Other settings, as for `open`.

        Raises:
            ConfigError: A setting is unknown or has a wrong value.
        """
        name, given = (embedder, None) if isinstance(embedder, str) else (None, embedder)
        own = {"vector": vector, "sparse": sparse}
        said = adopting.arguments(collection, url=url, embedder=name, adopt=own, sections=sections)
        return cls(load_settings(said).settings, embedder=given)

    # --- documents -> chunks -> index

    def ingest(
        self,
        *paths: str | Path,
        selection: Selection | None = None,
        rebuild: bool = False,
        fail_fast: bool = False,
        engine: Engine | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> IngestReport:
        """Make the index equal to the files under `paths`: new, changed, renamed and deleted ones.

        Documents that came from elsewhere stay. Searches in other threads go on: they see each document as it
        was or as it is. An unchanged file costs a look at its size and times.

        Args:
            paths: Files and folders.
            selection: Which files below `paths` are meant; all that a parser is for, where it is None.
            rebuild: Throw the whole index away first, what came from other paths too.
            fail_fast: Stop at the first file that cannot be read.
            engine: Prepares documents; None for this process. `crossrag.scale.ingest.RayEngine` does it on
                many machines. The index is the same.
            progress: Called before each file.

        Raises:
            LoadError: A file cannot be read and `fail_fast` is set, or a path cannot be looked at.
            UsageError: A path does not exist, or there is none.
            StoreError: The index cannot be written.
            FingerprintError: The index was built with other settings.
        """
        return self.index.ingest(
            [Path(path) for path in paths],
            selection or Selection(),
            rebuild=rebuild,
            fail_fast=fail_fast,
            engine=engine,
            progress=progress,
        )

    def plan(
        self,
        *paths: str | Path,
        selection: Selection | None = None,
        rebuild: bool = False,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Plan:
        """What `ingest` would do with the same arguments. Writes no document and needs no index.

        Raises:
            FingerprintError: The index was built with other settings. Not told where another process has it.
            LoadError, UsageError: As of `ingest`.
        """
        chosen = selection or Selection()
        return self.index.plan([Path(path) for path in paths], chosen, rebuild=rebuild, progress=progress)

    def documents(self) -> list[Entry]:
        """What is indexed, in order of source."""
        return list(self.manifest.entries().values())

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
            deadline: Seconds for the whole; None for `reranking.deadline`, of reranking alone. Where time is
                up, the passages come in the order that they have by then.

        Raises:
            UsageError: The query is empty or a filter key is malformed.
            ModelError: The query can be searched neither by meaning nor by words.
            IndexMissingError: Nothing was ingested yet.
        """
        return asking.search(self, query, top_k=top_k, where=where, deadline=deadline)

    # --- context -> answer

    def ask(
        self,
        question: str,
        *,
        history: Sequence[Turn] = (),
        where: Where | None = None,
        deadline: float | None = None,
    ) -> Answer:
        """The answer, whole. `status` is `no_answer` where the documents hold none.

        Args:
            question: A question; a follow-up is completed by what was asked before.
            history: Earlier turns, oldest first, which the caller holds.
            where: Keep only chunks whose metadata equals this.
            deadline: Seconds for the whole; None for `generator.deadline`. Where time is up, the answer is
                what was written by then, and says so.

        Raises:
            GeneratorError: The language model failed.
        """
        for event in self.stream(question, history=history, where=where, deadline=deadline):
            if isinstance(event, Done):
                return event.answer
        raise AssertionError("a stream ended without Done")

    def stream(
        self,
        question: str,
        *,
        history: Sequence[Turn] = (),
        where: Where | None = None,
        deadline: float | None = None,
    ) -> Iterator[Event]:
        """Retrieved, then text with its claims and citations as they come, then exactly one Done.

        Arguments as for `ask`.

        Raises:
            GeneratorError: The language model failed; events given before remain valid.
        """
        yield from asking.answer(self, question, history=history, where=where, deadline=deadline)

    def rerank(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> Relevance:
        """How relevant texts are that need be in no index; in their order.

        Args:
            query: A question or a few words.
            texts: Passages.
            deadline: Seconds after which no further batch is begun; None for no limit.

        Raises:
            UsageError: There is no reranker.
            ModelError: It failed.
        """
        if self.reranker is None:
            raise UsageError("There is no reranker", hint="Set reranking.model")
        alone = assembly.freestanding(
            self.settings, self.reranker, embedder=self.embedder, sparse_encoder=self.sparse_encoder
        )
        until = None if deadline is None else time.monotonic() + deadline
        return alone.score(
            loading.clean_text(query), [loading.clean_text(text) for text in texts], deadline=until
        )

    # --- judged questions -> calibration

    def calibrate(
        self,
        judgements: Sequence[calibrating.Judgement],
        *,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> calibrating.Calibrated:
        """Fit relevance to judged questions; what is `better` is kept beside the index for later answers.

        Args:
            judgements: From `calibrating.read_judgements`, or made by hand.
            progress: Called with the number of questions done and of all.

        Raises:
            UsageError: There is no reranker, or too few questions or pairs of either kind.
            ModelError: The reranker failed on a question.
        """
        if self.reranker is None:
            raise UsageError("There is no reranker to calibrate", hint="Set reranking.model")
        grouped = calibrating.by_question(judgements)
        # Before the time is spent: more than these cannot be found.
        calibrating.check_enough(len(grouped), asked=len(grouped))
        # The reranker's own relevance is what is to be mended, whatever an earlier calibration says.
        self.__dict__["calibrated"] = None
        try:
            ranked = searching.read_whole(self, list(grouped), progress=progress)
            found = calibrating.calibrate(ranked, grouped, scorers=self._scorers())
            if found.better:
                found.save(self.settings.index.path)
            return found
        finally:
            del self.__dict__["calibrated"]

    # --- life

    def close(self) -> None:
        """Let go of the index; closing twice is fine."""
        self.index.close()
        resource = self.__dict__.get("reranker")
        # Only rerankers with a file or a connection can be closed; the caller's are the caller's.
        if resource is not None and hasattr(resource, "close") and "reranker" not in self._given:
            del self.__dict__["reranker"]
            resource.close()
        # What is made of them, or read beside the index, is made and read anew.
        for name in ("generator", "fallback", "last_resort", "calibrated"):
            if name not in self._given:
                self.__dict__.pop(name, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- backends, each made once and at first use

    @cached_property
    def embedder(self) -> Embedder:
        """From `embedder.model`."""
        return assembly.embedder(self.settings)

    @cached_property
    def sparse_encoder(self) -> SparseEncoder:
        """From `sparse.model`."""
        return assembly.sparse_encoder(self.settings)

    @cached_property
    def reranker(self) -> Reranker | None:
        """From `reranking.model`; None where that is `none`."""
        return assembly.reranker(self.settings)

    @cached_property
    def generator(self) -> Generator:
        """From `generator.model`."""
        return assembly.generator(self.settings, reranker=self.reranker, embedder=self.embedder)

    @cached_property
    def fallback(self) -> Generator | None:
        """Answers when a language model is down; None where nothing does."""
        return assembly.fallback(self.settings, reranker=self.reranker, embedder=self.embedder)

    @cached_property
    def last_resort(self) -> Generator:
        """Quotes when no model is left."""
        return assembly.last_resort(self.sparse_encoder)

    @cached_property
    def complete(self) -> Callable[[str], str] | None:
        """Asks the language model of `expansion.model` or `generator.model`; None where there is none."""
        return assembly.completion(self.settings)

    @cached_property
    def count_tokens(self) -> Callable[[str], int]:
        """As the model that reads the context does, or an estimate."""
        return assembly.token_counter(self.settings)

    @cached_property
    def grounder(self) -> Grounder | None:
        """From `verification.model`; None where that is `none`."""
        return assembly.grounder(self.settings)

    @property
    def store(self) -> Store:
        """The chunks, with what is in transition; the index must exist."""
        return self.index.store

    @property
    def manifest(self) -> Manifest:
        """What is indexed."""
        return self.index.manifest

    @cached_property
    def calibrated(self) -> calibrating.Calibrated | None:
        """What `calibrate` has found out, if it was with these models."""
        found = calibrating.load(self.settings.index.path)
        return found if found is not None and found.scorers == self._scorers() else None

    def _scorers(self) -> tuple[str, ...]:
        """Everything that a logit depends on: the bundled reranker's also on the first stage."""
        parts = (self.reranker, self.embedder, self.sparse_encoder)
        return tuple(part.fingerprint for part in parts if part is not None)

"""Collection -> for each question its candidates, with the first stage's scores: what a reranker learns from.

Both legs are searched exactly, in memory, with the same embedder and sparse encoder as at query time, so the
scores are those that the reranker will meet. Knows nothing of networks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossrag.retrieval import reciprocal_rank_fusion
from crossrag.sentences import split_sentences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crossrag.protocols import Embedder, SparseEncoder
    from crossrag.types import SparseVector

    from .judged import Collection, Passage

_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what the first stage found for it, best first, and all its relevant passages."""

    id: str
    text: str
    passages: NDArray[np.int32]
    """int32[n]: positions in the collection."""
    grades: NDArray[np.int8]
    """int8[n]: above 0 relevant, 0 judged irrelevant, -1 not judged."""
    first_stage: NDArray[np.float32]
    """float32[n, 2]: cosine and BM25."""


@dataclass(frozen=True, slots=True)
class Mined:
    """Questions about one collection, with their candidates."""

    name: str
    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    searched: int = 0
    """How many passages were searched, where that is more than those kept."""

    @property
    def indexed(self) -> int:
        """How many passages BM25 has counted."""
        return self.searched or len(self.passages)


class Searcher:
    """Exact hybrid search over one collection, for many questions at once."""

    def __init__(
        self,
        passages: Sequence[Passage],
        *,
        embedder: Embedder,
        sparse_encoder: SparseEncoder,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.passages = list(passages)
        self._embedder, self._terms = embedder, sparse_encoder
        self._dense = np.zeros((len(passages), embedder.dimension), np.float32)
        vectors: list[SparseVector] = []
        for start in range(0, len(passages), _BLOCK):
            texts = [passage.described for passage in passages[start : start + _BLOCK]]
            self._dense[start : start + len(texts)] = embedder.embed_documents(texts)
            vectors += sparse_encoder.encode_documents(texts)
            progress(len(texts))
        self._postings = _Postings(vectors)

    def scores(self, texts: Sequence[str]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Per question: cosine and BM25 of every passage."""
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            # One by one: a model may have other vectors for questions than for texts.
            cosines = np.stack([self._embedder.embed_query(text) for text in block]) @ self._dense.T
            for text, row in zip(block, cosines, strict=True):
                yield row, self.sparse(self._terms.encode_query(text))

    def sparse(self, terms: SparseVector) -> NDArray[np.float32]:
        """BM25 of every passage for weighted terms."""
        return self._postings.scores(terms)

    def legs(
        self, dense: NDArray[np.float32] | None, sparse: SparseVector | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosine and BM25 of every passage for a question's vector and terms; 0 for what is None."""
        nothing = np.zeros(len(self.passages), np.float32)
        return (
            nothing if dense is None else self._dense @ dense,
            nothing if sparse is None else self._postings.scores(sparse),
        )


class _Postings:
    """Term -> passages that hold it and their weights; scores with Qdrant's inverse document frequency."""

    def __init__(self, vectors: Sequence[SparseVector]) -> None:
        self._count = len(vectors)
        lengths = [len(vector.indices) for vector in vectors]
        owners = np.repeat(np.arange(self._count), lengths)
        terms = np.concatenate([np.asarray(v.indices, np.int64) for v in vectors] or [np.zeros(0, np.int64)])
        weights = np.concatenate(
            [np.asarray(v.values, np.float32) for v in vectors] or [np.zeros(0, np.float32)]
        )
        order = np.argsort(terms, kind="stable")
        self._owners, self._weights = owners[order], weights[order]
        names, starts = np.unique(terms[order], return_index=True)
        ends = np.append(starts[1:], len(terms))
        self._spans = {int(n): (int(s), int(e)) for n, s, e in zip(names, starts, ends, strict=True)}

    def scores(self, query: SparseVector) -> NDArray[np.float32]:
        total = np.zeros(self._count, np.float32)
        for term, weight in zip(query.indices, query.values, strict=True):
            start, end = self._spans.get(term, (0, 0))
            if end > start:
                rarity = np.log1p((self._count - (end - start) + 0.5) / (end - start + 0.5))
                # A passage stands once in the postings of a term, so plain indexing adds correctly.
                total[self._owners[start:end]] += weight * rarity * self._weights[start:end]
        return total


def mine(
    collection: Collection,
    split: str,
    *,
    searcher: Searcher,
    depth: int = 40,
    scope: Callable[[Passage], str] | None = None,
    limit: int | None = None,
) -> Iterator[Question]:
    """Yield every judged question of a split with its relevant passages and the first stage's best others.

    Args:
        collection: Where the judgements are.
        split: Which of them.
        searcher: Over the passages of the same collection.
        depth: Passages taken from each leg; the union is kept.
        scope: Where a question only makes sense inside one document: what names that document. Candidates
            come from the documents of the relevant passages then.
        limit: At most so many questions, evenly spread.
    """
    judged = collection.judgements.get(split, {})
    ids = sorted(judged)
    if limit is not None and len(ids) > limit:
        ids = [ids[int(position)] for position in np.linspace(0, len(ids) - 1, limit)]
    position_of = {passage.id: position for position, passage in enumerate(searcher.passages)}
    scopes = np.asarray([scope(passage) for passage in searcher.passages]) if scope else None
    texts = [collection.queries[identifier] for identifier in ids]
    for identifier, text, (dense, sparse) in zip(ids, texts, searcher.scores(texts), strict=True):
        grades = {
            position_of[passage]: grade
            for passage, grade in judged[identifier].items()
            if passage in position_of
        }
        allowed = None
        if scopes is not None:
            inside = {scopes[position] for position, grade in grades.items() if grade > 0}
            allowed = np.isin(scopes, list(inside))
        found = candidates(dense, sparse, depth=depth, allowed=allowed)
        order = [*found, *sorted(position for position in grades if position not in set(found))]
        yield Question(
            identifier,
            text,
            np.asarray(order, np.int32),
            np.asarray([grades.get(position, -1) for position in order], np.int8),
            np.stack([dense[order], sparse[order]], axis=1).astype(np.float32),
        )


def pseudo_questions(
    collection: Collection, *, searcher: Searcher, count: int = 400, depth: int = 30
) -> Mined:
    """Titles and sentences of the collection as questions without judgements, with their candidates.

    They teach nothing of relevance: on them the network is to keep the first stage's order, so that its broad
    knowledge is not lost while it learns from few kinds of questions.
    """
    texts = pseudo_texts(collection.passages, count, seed=collection.name)
    questions = []
    for number, (text, (dense, sparse)) in enumerate(zip(texts, searcher.scores(texts), strict=True)):
        found = candidates(dense, sparse, depth=depth)
        scores = np.stack([dense[found], sparse[found]], axis=1).astype(np.float32)
        questions.append(unjudged(number, text, found, scores))
    return Mined(unlabelled(collection.name), collection.passages, tuple(questions))


def pseudo_texts(passages: Sequence[Passage], count: int, *, seed: str) -> list[str]:
    """Titles and sentences of at most `count` passages, sorted."""
    chance = random.Random(seed)  # noqa: S311 - a draw, no secret
    texts: set[str] = set()
    for passage in chance.sample(passages, min(count, len(passages))):
        if passage.title and chance.random() < 0.35:
            texts.add(passage.title)
            continue
        text = passage.text[:1500]
        sentences = [text[sentence.start : sentence.end] for sentence in split_sentences(text)]
        if usable := [sentence for sentence in sentences if 20 <= len(sentence) <= 250]:
            texts.add(chance.choice(usable))
    return sorted(texts)


def unjudged(number: int, text: str, found: Sequence[int], scores: NDArray[np.float32]) -> Question:
    """A question of whose candidates nothing is known but the first stage's scores float32[n, 2]."""
    places = np.asarray(found, np.int32)
    return Question(f"pseudo-{number}", text, places, np.full(len(found), -1, np.int8), scores)


def unlabelled(name: str) -> str:
    """What questions without judgements about a collection are called."""
    return f"{name}, unlabelled"


def candidates(
    dense: NDArray[np.float32],
    sparse: NDArray[np.float32],
    *,
    depth: int,
    allowed: NDArray[np.bool_] | None = None,
    rrf_k: int = 60,
) -> list[int]:
    """Positions of the union of both legs' best, in the order of reciprocal rank fusion."""
    rankings: list[list[int]] = []
    for leg in (dense, np.where(sparse > 0, sparse, -np.inf)):
        values = leg if allowed is None else np.where(allowed, leg, -np.inf)
        reach = min(depth, len(values))
        best = np.argpartition(-values, reach - 1)[:reach]
        ordered = sorted((int(p) for p in best if np.isfinite(values[p])), key=lambda p: (-values[p], p))
        rankings.append(ordered)
    fused = reciprocal_rank_fusion(rankings, k=rrf_k)
    return sorted(fused, key=lambda position: (-fused[position], -dense[position], position))

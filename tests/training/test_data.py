"""Judged folders -> mined questions -> one packed file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from crossrag.errors import UsageError
from crossrag.testing import HashedEmbedder, HashedTerms
from crossrag.training.judged import Collection, Passage, read_collections
from crossrag.training.mining import Searcher, candidates, mine
from crossrag.training.packing import read_pack, write_pack
from crossrag.training.sources import from_folder

from .toys import folder_of_judgements, toy

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_a_folder_is_read_plain_or_gzipped(tmp_path: Path) -> None:
    (collection,) = read_collections(folder_of_judgements(tmp_path), by_prefix=True)
    assert collection.name == "s"
    assert len(collection.passages) == len(collection.queries) == 30
    assert collection.judgements["train"]["s:q3"] == {"s:3": 1}


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("queries.jsonl", "not json\n", "queries.jsonl, line 31"),
        ("queries.jsonl", '{"_id": "s:q99"}\n', "needs _id and text"),
        ("qrels/train.tsv", "s:q1\ts:1\tgood\n", "train.tsv, line 32"),
        ("qrels/train.tsv", "s:q77\ts:7\t1\n", "'s:q77' is no question"),
        ("qrels/train.tsv", "s:q1\ts:1\tinf\n", "train.tsv, line 32"),
        ("queries.jsonl", '{"_id": "s:q99", "text": null}\n', "text must be a string"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, name: str, line: str, says: str) -> None:
    folder = folder_of_judgements(tmp_path)
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(line)
    with pytest.raises(UsageError, match=says):
        read_collections(folder, by_prefix=True)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = folder_of_judgements(tmp_path)
    whole = (folder / "corpus.jsonl.gz").read_bytes()
    (folder / "corpus.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"corpus\.jsonl\.gz cannot be read"):
        read_collections(folder, by_prefix=True)
    (folder / "corpus.jsonl.gz").write_bytes(whole)
    (folder / "queries.jsonl").write_bytes('{"_id": "s:q1", "text": "caf\xe9"}\n'.encode("latin-1"))
    with pytest.raises(UsageError, match=r"queries\.jsonl is not UTF-8"):
        read_collections(folder, by_prefix=True)


def test_judgements_without_a_header_are_all_read(tmp_path: Path) -> None:
    folder = folder_of_judgements(tmp_path)
    qrels = folder / "qrels" / "train.tsv"
    qrels.write_text(qrels.read_text(encoding="utf-8").partition("\n")[2], encoding="utf-8")
    (collection,) = read_collections(folder, by_prefix=True)
    assert len(collection.judgements["train"]) == 30


def test_what_is_there_to_measure_is_not_learned_from(tmp_path: Path) -> None:
    folder = folder_of_judgements(tmp_path)
    legs = {"embedder": HashedEmbedder(), "sparse_encoder": HashedTerms()}
    (folder / "qrels" / "train.tsv").rename(folder / "qrels" / "test.tsv")
    found = from_folder(folder, **legs, by_prefix=True)  # type: ignore[arg-type]
    assert (len(found.train), len(found.dev)) == (1, 0)
    (unlabelled,) = found.unlabelled
    assert len(unlabelled.questions) == 5
    assert all((question.grades == -1).all() for question in unlabelled.questions)
    assert all(question.text in {p.text for p in unlabelled.passages} for question in unlabelled.questions)
    rows = (folder / "qrels" / "test.tsv").read_text(encoding="utf-8")
    (folder / "qrels" / "dev.tsv").write_text(rows, encoding="utf-8")
    with pytest.raises(UsageError, match=r"has the judgements test"):
        from_folder(folder, **legs, by_prefix=True)  # type: ignore[arg-type]


def test_too_few_questions_are_said_before_anything_is_searched(tmp_path: Path) -> None:
    def check(learned: int, held_out: int) -> None:
        assert (learned, held_out) == (30, 0)
        raise UsageError("too few")

    class Unasked(HashedEmbedder):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            raise AssertionError(texts)

    with pytest.raises(UsageError, match="too few"):
        from_folder(
            folder_of_judgements(tmp_path),
            embedder=Unasked(),
            sparse_encoder=HashedTerms(),
            by_prefix=True,
            check=check,
        )


def test_mining_scores_as_the_store_does() -> None:
    """The scores that a reranker learns from are those that it will meet."""
    from crossrag.testing import MemoryStore
    from crossrag.types import Chunk

    passages = [Passage(str(n), "", f"cat{n % 3} dog{n % 2} tree {'house ' * n}") for n in range(9)]
    embedder, terms, store = HashedEmbedder(), HashedTerms(), MemoryStore()
    chunks = [
        Chunk(id=p.id, document_id=p.id, source=p.id, text=p.text, start=0, end=len(p.text), position=0)
        for p in passages
    ]
    texts = [passage.text for passage in passages]
    store.upsert(chunks, embedder.embed_documents(texts), terms.encode_documents(texts))
    searcher = Searcher(passages, embedder=embedder, sparse_encoder=terms)
    query = "dog1 house cat2"
    ((dense, sparse),) = searcher.scores([query])
    found = store.search(embedder.embed_query(query), terms.encode_query(query), limit=9)
    for hit in (*found.dense, *found.sparse):
        assert dense[int(hit.chunk.id)] == pytest.approx(hit.dense, abs=1e-5)
        assert sparse[int(hit.chunk.id)] == pytest.approx(hit.sparse, abs=1e-4)


def test_relevant_passages_are_mined_even_if_the_search_misses_them() -> None:
    passages = tuple(Passage(str(n), "", f"apple number{n}") for n in range(20))
    collection = Collection(
        "c", (*passages, Passage("far", "", "zebra")), {"q": "apple"}, {"t": {"q": {"far": 2}}}
    )
    searcher = Searcher(collection.passages, embedder=HashedEmbedder(), sparse_encoder=HashedTerms())
    (question,) = mine(collection, "t", searcher=searcher, depth=5)
    assert question.passages[-1] == 20
    assert question.grades.tolist() == [-1] * (len(question.grades) - 1) + [2]


def test_a_scope_keeps_candidates_inside_one_document() -> None:
    passages = tuple(Passage(str(n), "ab"[n % 2], f"apple number{n}") for n in range(20))
    collection = Collection("c", passages, {"q": "apple"}, {"t": {"q": {"3": 1}}})
    searcher = Searcher(passages, embedder=HashedEmbedder(), sparse_encoder=HashedTerms())
    (question,) = mine(collection, "t", searcher=searcher, scope=lambda passage: passage.title)
    assert {passages[number].title for number in question.passages} == {"b"}


def test_candidates_are_fused_by_rank() -> None:
    dense = np.asarray([0.9, 0.8, 0.1, 0.0], np.float32)
    sparse = np.asarray([0.0, 3.0, 2.0, 0.0], np.float32)
    assert candidates(dense, sparse, depth=2) == [1, 0, 2]


def test_a_pack_is_the_questions_again_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    mined = toy(5)
    write_pack(tmp_path / "pack", [("train", mined), ("dev", toy(3, seed=2))])
    again = read_pack(tmp_path / "pack")
    assert list(again) == ["train", "dev"]
    (part,) = again["train"]
    assert part.passages == mined.passages
    for one, other in zip(part.questions, mined.questions, strict=True):
        assert (one.id, one.text) == (other.id, other.text)
        assert one.grades.tolist() == other.grades.tolist()
        assert one.first_stage == pytest.approx(other.first_stage, abs=1e-4)
    data = (tmp_path / "pack").read_bytes()
    write_pack(tmp_path / "pack", [("train", mined), ("dev", toy(3, seed=2))])
    assert (tmp_path / "pack").read_bytes() == data
    (tmp_path / "pack").write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match="no packed training data"):
        read_pack(tmp_path / "pack")

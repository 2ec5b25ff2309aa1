"""Checks of retrievers, over an index of `material.CORPUS`. Each is a plain function."""

from __future__ import annotations

from typing import Any

from .material import CORPUS, QUERY, QUESTIONS
from .verdicts import Verdict, failed, not_applicable, passed

_TOPIC = {passage.id: passage.metadata["topic"] for passage in CORPUS}
_SHELF = {passage.id: passage.metadata["shelf"] for passage in CORPUS}
_FEW, _FETCHED = 4, len(CORPUS)


def the_subject_is_found(index: Any) -> Verdict:
    """Among the first three are passages of the subject that was asked for."""
    found = list(index.search(QUERY, 3))
    about = [name for name in found if _TOPIC.get(name) == "backup"]
    return passed() if len(about) >= 2 else failed(f"{QUERY!r} finds {found}")


def as_many_as_asked(index: Any) -> Verdict:
    """Where there are enough passages, k are k, each once; where there are fewer, all come."""
    for query in QUESTIONS:
        for top_k in (1, 5, 10):
            found = list(index.search(query, top_k))
            if len(found) != top_k or len(set(found)) != top_k:
                return failed(f"asked for {top_k} of {len(CORPUS)} got {len(set(found))} ({query!r})")
    every = list(index.search(QUERY, len(CORPUS) + 5))
    if len(every) > len(CORPUS) or len(set(every)) != len(every):
        return failed(f"asked for more than there is got {len(every)}, {len(set(every))} of them unlike")
    return passed()


def fewer_are_the_beginning_of_more(index: Any) -> Verdict:
    """Whoever asks for fewer gets the beginning of what more would be."""
    wrong = []
    for query in QUESTIONS:
        many = list(index.search(query, 10))
        for top_k in (1, 2, 3, 5):
            few = list(index.search(query, top_k))
            if few != many[:top_k]:
                wrong.append(f"{query!r}: {top_k} are {few}, the first of 10 are {many[:top_k]}")
    if wrong:
        return failed(f"{len(wrong)} of {4 * len(QUESTIONS)} searches, such as {wrong[0]}")
    return passed()


def a_filter_is_enforced(index: Any) -> Verdict:
    """Nothing comes back that the filter leaves out."""
    for shelf in ("odd", "even"):
        found = list(index.search(QUERY, 10, {"shelf": shelf}))
        if strays := [name for name in found if _SHELF.get(name) != shelf]:
            return failed(f"{len(strays)} of {len(found)} passages are not on the shelf {shelf!r}")
    none = list(index.search(QUERY, 10, {"shelf": "none"}))
    return failed(f"{len(none)} passages on a shelf that there is not") if none else passed()


def a_filter_does_not_starve(index: Any) -> Verdict:
    """As many as pass the filter come back, up to k, however far behind they rank."""
    found = list(index.search(QUERY, 4, {"topic": "printer"}))
    if len(set(found)) != 4:
        return failed(f"of 4 passages that pass the filter {len(set(found))} came back")
    return passed()


def mmr_of_one_is_relevance(index: Any) -> Verdict:
    """With lambda 1, maximal marginal relevance is the order of relevance."""
    if not hasattr(index, "mmr"):
        return not_applicable("no MMR")
    for query in QUESTIONS:
        wanted = list(index.search(query, _FEW))
        found = list(index.mmr(query, _FEW, _FETCHED, 1.0))
        if found != wanted:
            return failed(f"{query!r}: {found} in place of {wanted}")
    return passed()


def mmr_of_zero_is_diverse(index: Any) -> Verdict:
    """With lambda 0 there are more subjects among the few than with lambda 1."""
    if not hasattr(index, "mmr"):
        return not_applicable("no MMR")
    relevant, diverse = (
        len({_TOPIC.get(name) for name in index.mmr(QUERY, _FEW, _FETCHED, weight)}) for weight in (1.0, 0.0)
    )
    said = f"{relevant} subjects with lambda 1, {diverse} with lambda 0"
    return passed(said) if diverse > relevant else failed(said)

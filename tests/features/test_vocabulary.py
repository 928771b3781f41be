from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.canonical import hash_text
from features.vocabulary import Vocabulary

texts = st.lists(st.text(max_size=6), max_size=8)


@given(texts)
def test_holds_its_texts_in_order(given_texts: list[str]) -> None:
    vocabulary = Vocabulary.of(given_texts)
    assert len(vocabulary) == len(given_texts)
    assert list(vocabulary) == given_texts
    assert [vocabulary.text_at(place) for place in range(len(vocabulary))] == given_texts


@given(texts)
def test_hashes_are_those_of_the_texts(given_texts: list[str]) -> None:
    found = Vocabulary.of(given_texts).hashes(7)
    assert found.dtype == np.uint64
    assert found.tolist() == [hash_text(text, 7) for text in given_texts]


@given(texts, texts)
def test_equal_when_the_texts_are(some: list[str], others: list[str]) -> None:
    assert (Vocabulary.of(some) == Vocabulary.of(others)) == (some == others)


def test_where_the_texts_part_matters() -> None:
    assert Vocabulary.of(("ab", "c")) != Vocabulary.of(("a", "bc"))


def test_equal_vocabularies_hash_alike() -> None:
    assert hash(Vocabulary.of(("a", "é"))) == hash(Vocabulary.of(("a", "é")))


@given(texts, texts)
def test_part_of_a_shared_text_reads_as_if_alone(before: list[str], own: list[str]) -> None:
    """Large vocabularies of several fields lie in one array."""
    first, second = Vocabulary.of(before), Vocabulary.of(own)
    text = np.frombuffer(first.packed() + second.packed() + b"behind", np.uint8)
    shared = Vocabulary(text, second.ends, len(first.packed()))
    assert shared == second
    assert shared.packed() == second.packed()
    assert [shared.text_at(place) for place in range(len(own))] == own
    assert shared.hashes(3).tolist() == second.hashes(3).tolist()

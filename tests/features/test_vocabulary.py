from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import vocabulary as vocabulary_module
from features.canonical import hash_text
from features.vocabulary import IS_COMPILED, Vocabulary

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


@pytest.mark.parametrize("is_compiled", [False, IS_COMPILED])
@pytest.mark.parametrize("seed", [0, 1, 2**63 + 12345])
def test_hashes_are_those_of_single_texts(
    monkeypatch: pytest.MonkeyPatch, is_compiled: bool, seed: int
) -> None:
    monkeypatch.setattr(vocabulary_module, "IS_COMPILED", is_compiled)
    texts = ["é" * (length % 2) + "x" * length for length in range(301)]
    expected = [hash_text(text, seed) for text in texts]
    vocabulary = Vocabulary.of(texts)
    assert vocabulary.hashes(seed).tolist() == expected
    later = Vocabulary(
        np.concatenate([np.zeros(3, np.uint8), vocabulary.text]), vocabulary.ends, start=3
    )
    assert later.hashes(seed).tolist() == expected
    assert Vocabulary.of(()).hashes(seed).tolist() == []

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.canonical import LARGEST_EXACT, canonical_text, field_seed, hash_text
from features.errors import FeatureError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        (" A ", " A "),
        ("01", "01"),
        ("1.0", "1.0"),
        (1, "1"),
        (-7, "-7"),
        (1.0, "1"),
        (-0.0, "0"),
        (1e15, "1000000000000000"),
        (0.1, "0.1"),
        (1e-7, "1e-07"),
        (True, "true"),
        (False, "false"),
        (LARGEST_EXACT, "9007199254740992"),
        (-float(LARGEST_EXACT), "-9007199254740992"),
    ],
)
def test_the_text_of_a_category(value: Any, text: str) -> None:
    assert canonical_text(value) == text


@given(st.integers(-LARGEST_EXACT, LARGEST_EXACT))
def test_an_integer_its_float_and_its_decimal_are_one_category(number: int) -> None:
    assert canonical_text(number) == canonical_text(float(number)) == canonical_text(str(number))


@pytest.mark.parametrize(("truth", "number"), [(True, 1), (False, 0)])
def test_a_boolean_is_not_its_number(truth: bool, number: int) -> None:
    assert canonical_text(truth) != canonical_text(number)


@pytest.mark.parametrize(
    "value", [2**53 + 1, -(2**53) - 1, 2**60, 10**400, 1e300, float("inf"), float("nan")]
)
def test_a_number_beyond_2_53_is_refused(value: float) -> None:
    with pytest.raises(FeatureError, match=r"within 2\^53 of zero") as caught:
        canonical_text(value)
    assert caught.value.code == "out_of_range"


@given(st.text(), st.integers(0, 2**64 - 1))
def test_a_hash_is_never_0_and_fits_64_bits(text: str, seed: int) -> None:
    assert 0 < hash_text(text, seed) < 2**64


def test_a_hash_of_0_is_moved_to_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xxhash.xxh3_64_intdigest", lambda *_: 0)
    assert hash_text("a", 0) == 1


def test_hashes_are_the_same_in_every_process() -> None:
    """They lie in bundles: a change would make every category of an old one unknown."""
    assert hash_text("Lyon", field_seed("city", 0)) == 0x478A856A33583F0E


def test_fields_and_seeds_do_not_share_hashes() -> None:
    seeds = {field_seed(name, seed) for name in ("city", "shop") for seed in (0, 1)}
    assert len({hash_text("Lyon", seed) for seed in seeds}) == 4

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cross import CrossField
from features.encode import Encoded, Encoder
from features.errors import FeatureError, SchemaError
from features.schema import SIDES, BucketField, CategoricalField, Schema, ValueField
from features.schema_file import (
    ENDS_FILE,
    LARGEST_INLINE,
    SCHEMA_FILE,
    TABLE_FILE,
    TEXT_FILE,
    fingerprint,
    load_schema,
    save_schema,
)
from features.table import HashTable
from features.vocabulary import Vocabulary
from tests.features.strategies import columns_of, crossed_schemas, schemas

SMALL = Schema(
    (
        BucketField(name="age", boundaries=(0.1, 1e308)),
        ValueField(name="mass", minimum=-0.1, maximum=5e-324, transform="standard"),
        CategoricalField(name="city", vocabulary=Vocabulary.of(("Lyon", "", "é\n"))),
    )
)
MANY = [f"item {place}" for place in range(LARGEST_INLINE + 1)]
LARGE = Schema(
    (
        CategoricalField(name="few", vocabulary=Vocabulary.of(("a", "b"))),
        CategoricalField(name="item", vocabulary=Vocabulary.of(MANY)),
        CategoricalField(name="other", vocabulary=Vocabulary.of(["é", *reversed(MANY)])),
    )
)


def saved(schema: Schema, folder: Path) -> Path:
    save_schema(schema, folder)
    return folder


def test_the_file_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from features.schema import BucketField, Schema
from features.schema_file import save_schema
save_schema(Schema((BucketField(name=chr(233), boundaries=()),)), Path({str(tmp_path)!r}))
"""
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    subprocess.run([sys.executable, "-c", script], env=os.environ | ascii_only, check=True)
    assert load_schema(tmp_path)[0].fields[0].name == "é"


def outcomes(schema: Schema, table: HashTable, values: dict[str, list[Any]]) -> list[Any]:
    """What each side encodes to, or the sentence with which it refuses."""
    found: list[Any] = []
    for side in SIDES:
        encoder = Encoder(schema, side, table)
        columns, _ = encoder.columns_from_values(values)
        try:
            found += comparable(encoder.encode(columns, 3))
        except FeatureError as error:
            found.append(error.message)
    return found


def comparable(encoded: Encoded) -> list[Any]:
    return [encoded.index.tolist(), None if encoded.weight is None else encoded.weight.tolist()]


@given(schemas().flatmap(lambda s: st.tuples(st.just(s), columns_of(s, 3))))
def test_a_schema_read_back_encodes_identically(drawn: tuple[Schema, dict[str, list[Any]]]) -> None:
    schema, values = drawn
    with TemporaryDirectory() as folder:
        loaded, table = load_schema(saved(schema, Path(folder)))
        assert loaded == schema
        assert fingerprint(loaded) == fingerprint(schema)
        assert outcomes(loaded, table, values) == outcomes(schema, schema.build_table(), values)


def test_large_vocabularies_lie_in_arrays(tmp_path: Path) -> None:
    saved(LARGE, tmp_path)
    assert (tmp_path / SCHEMA_FILE).stat().st_size < 2000
    assert np.load(tmp_path / ENDS_FILE).shape == (2 * len(MANY) + 1,)
    assert "item 7" not in (tmp_path / SCHEMA_FILE).read_text()


def test_large_vocabularies_read_back_and_encode_identically(tmp_path: Path) -> None:
    loaded, table = load_schema(saved(LARGE, tmp_path))
    assert loaded == LARGE
    assert fingerprint(loaded) == fingerprint(LARGE)
    values: dict[str, list[Any]] = {
        "few": ["b"] * 3,
        "item": ["item 0", MANY[-1], "x"],
        "other": ["é", "item 0", None],
    }
    assert outcomes(loaded, table, values) == outcomes(LARGE, LARGE.build_table(), values)
    assert table.find_all(np.empty(0, np.uint64)).shape == (0,)


def test_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    loaded, table = load_schema(saved(LARGE, tmp_path))
    member = loaded.fields[1]
    assert isinstance(member, CategoricalField)
    for array in (table.slots, member.vocabulary.text, member.vocabulary.ends):
        assert isinstance(mapped_by(array), np.memmap)


def mapped_by(array: Any) -> Any:
    """What holds the memory that an array is a view of."""
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return array


def test_small_vocabularies_lie_in_the_json(tmp_path: Path) -> None:
    saved(SMALL, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {SCHEMA_FILE, TABLE_FILE}
    assert json.loads((tmp_path / SCHEMA_FILE).read_text())["fields"][2]["vocabulary"] == [
        "Lyon",
        "",
        "é\n",
    ]


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    """It lies in run folders and manifests: a change would orphan them."""
    assert fingerprint(SMALL)[:16] == "0e19d21ab74a7f67"


@pytest.mark.parametrize(
    "other",
    [
        Schema(SMALL.fields, seed=1),
        Schema(SMALL.fields[::-1]),
        Schema(SMALL.fields[:2]),
        Schema((BucketField(name="age", boundaries=(0.1, 1.7e308)), *SMALL.fields[1:])),
        Schema((BucketField(name="years", boundaries=(0.1, 1e308)), *SMALL.fields[1:])),
        Schema(
            (
                *SMALL.fields[:2],
                CategoricalField(name="city", vocabulary=Vocabulary.of(("Lyo", "n", "é\n"))),
            )
        ),
    ],
)
def test_the_fingerprint_knows_whatever_decides_an_encoding(other: Schema) -> None:
    assert fingerprint(other) != fingerprint(SMALL)


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """A damage to the document of `schema.json`."""

    def damage(folder: Path) -> None:
        document = json.loads((folder / SCHEMA_FILE).read_text())
        change(document)
        (folder / SCHEMA_FILE).write_text(json.dumps(document))

    return damage


def shorten(name: str, length: int) -> Callable[[Path], object]:
    """A damage that leaves only the first bytes of a file."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def forget_entries(folder: Path) -> None:
    np.save(folder / TABLE_FILE, HashTable.build(np.empty(0, np.uint64), np.empty(0, int)).slots)


def move_indices(folder: Path) -> None:
    slots = np.load(folder / TABLE_FILE)
    slots[slots[:, 0] != 0, 1] += np.uint64(LARGE.size)
    np.save(folder / TABLE_FILE, slots)


def pickle_table(folder: Path) -> None:
    np.save(folder / TABLE_FILE, np.array([{"a": 1}], object), allow_pickle=True)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no json": lambda folder: (folder / SCHEMA_FILE).unlink(),
    "no table": lambda folder: (folder / TABLE_FILE).unlink(),
    "no texts": lambda folder: (folder / TEXT_FILE).unlink(),
    "cut json": shorten(SCHEMA_FILE, 50),
    "empty json": shorten(SCHEMA_FILE, 0),
    "cut table": shorten(TABLE_FILE, 1000),
    "empty table": shorten(TABLE_FILE, 0),
    "cut texts": shorten(TEXT_FILE, 500),
    "cut ends": shorten(ENDS_FILE, 500),
    "table without entries": forget_entries,
    "indices beyond the schema": move_indices,
    "pickled table": pickle_table,
    "json list": lambda folder: (folder / SCHEMA_FILE).write_text("[]"),
    "future format": edit(lambda document: document.update(format=3)),
    "no seed": edit(lambda document: document.pop("seed")),
    "seed of another type": edit(lambda document: document.update(seed="0")),
    "homes beyond the table": edit(lambda document: document.update(homes=10**9)),
    "homes of another type": edit(lambda document: document.update(homes="9")),
    "no field": edit(lambda document: document.update(fields=[])),
    "unknown kind": edit(lambda document: document["fields"][0].update(kind="cross")),
    "unknown key": edit(lambda document: document["fields"][0].update(extra=1)),
    "no name": edit(lambda document: document["fields"][0].pop("name")),
    "two of one name": edit(lambda document: document["fields"][0].update(name="item")),
    "unknown policy": edit(lambda document: document["fields"][0].update(missing="drop")),
    "unknown side": edit(lambda document: document["fields"][0].update(side="user")),
    "name of another type": edit(lambda document: document["fields"][0].update(name=3)),
    "categories that are no text": edit(
        lambda document: document["fields"][0].update(vocabulary=[1])
    ),
    "longer vocabulary": edit(
        lambda document: document["fields"][2]["vocabulary"].update(size=9999)
    ),
    "negative place": edit(lambda document: document["fields"][2]["vocabulary"].update(begin=-5)),
    "fraction of a value": edit(lambda document: document["fields"][0].update(max_values=1.5)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_schema_is_refused(tmp_path: Path, damage: str) -> None:
    saved(LARGE, tmp_path)
    DAMAGES[damage](tmp_path)
    with pytest.raises(SchemaError):
        load_schema(tmp_path)


def test_a_future_format_is_named(tmp_path: Path) -> None:
    saved(SMALL, tmp_path)
    DAMAGES["future format"](tmp_path)
    with pytest.raises(SchemaError, match="schema format 3, this version reads 1 and 2"):
        load_schema(tmp_path)


CROSSED = replace(
    SMALL,
    crosses=(CrossField(name="x", side="candidate", of=("age", "city"), hash_buckets=9),),
)


@given(crossed_schemas())
def test_crosses_are_read_back_as_they_were(schema: Schema) -> None:
    with TemporaryDirectory() as folder:
        assert load_schema(saved(schema, Path(folder)))[0] == schema


def test_a_schema_of_format_1_is_read(tmp_path: Path) -> None:
    """As versions that knew no crosses wrote it."""
    file = saved(SMALL, tmp_path) / SCHEMA_FILE
    document = json.loads(file.read_text())
    del document["crosses"]
    file.write_text(json.dumps(document | {"format": 1}))
    assert load_schema(tmp_path)[0] == SMALL


@pytest.mark.parametrize(
    "change", [{"of": ("city", "age")}, {"hash_buckets": 8}, {"embedding": True}, {"name": "y"}]
)
def test_the_fingerprint_tells_crosses_apart(change: dict[str, Any]) -> None:
    changed = replace(CROSSED, crosses=(replace(CROSSED.crosses[0], **change),))
    assert len({fingerprint(schema) for schema in (SMALL, CROSSED, changed)}) == 3


def test_the_fingerprint_without_crosses_is_that_of_format_1() -> None:
    """Else every bundle of format 1 would be refused."""
    assert fingerprint(SMALL) == (
        "0e19d21ab74a7f67af514dc8a50a4ea77275e16931933f981fa25aa423263fd1"
    )

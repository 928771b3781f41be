"""A Criteo-shaped click log of any length: 13 numbers, 26 categories, from a fixed seed.

Categories follow Zipf's law; their sizes grow geometrically to 1,000,000 together. One value in
twenty is missing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

NUMBERS = [f"I{number}" for number in range(1, 14)]
CATEGORIES = [f"C{number}" for number in range(1, 27)]
LABEL = "label"
MISSING = 0.05
CHUNK_ROWS = 500_000
_ZIPF = 1.1


def write_log(path: Path, rows: int, seed: int = 0) -> None:
    """Write a `.csv` or `.parquet` file."""
    random = np.random.default_rng(seed)
    sizes = np.geomspace(10, 250_000, len(CATEGORIES))
    sizes = np.maximum((sizes / sizes.sum() * 1_000_000).astype(int), 4)
    words = [_words(field, size) for field, size in enumerate(sizes.tolist())]
    weights = [np.cumsum(np.arange(1, size + 1) ** -_ZIPF) for size in sizes.tolist()]
    schema = pa.schema(
        [(LABEL, pa.int8())]
        + [(name, pa.float64()) for name in NUMBERS]
        + [(name, pa.string()) for name in CATEGORIES]
    )
    plain = pa.csv.WriteOptions(quoting_style="none")
    is_csv = path.suffix == ".csv"
    writer = pa.csv.CSVWriter(path, schema, write_options=plain) if is_csv else None
    with writer or pa.parquet.ParquetWriter(path, schema) as out:
        for start in range(0, rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, rows - start)
            out.write_table(_chunk(random, words, weights, count).cast(schema))


def write_spec(path: Path, log: str, valid: str) -> None:
    """A spec for it: learned buckets and learned vocabularies."""
    tables = [f'[fields.{name}]\ntype = "numeric"\n' for name in NUMBERS]
    tables += [f'[fields.{name}]\ntype = "categorical"\n' for name in CATEGORIES]
    data = f'[data]\ntrain = "{log}"\nvalid = "{valid}"\nlabel = "{LABEL}"\n'
    path.write_text(data + "".join(tables), encoding="utf-8")


def _words(field: int, size: int) -> pa.Array:
    hashes = [(rank * 2654435761 + field * 40503) & 0xFFFFFFFF for rank in range(size)]
    return pa.array([f"{number:08x}" for number in hashes])


def _chunk(
    random: np.random.Generator,
    words: list[pa.Array],
    weights: list[NDArray[np.float64]],
    rows: int,
) -> pa.Table:
    columns = {LABEL: pa.array((random.random(rows) < 0.25).astype(np.int8))}
    for name in NUMBERS:
        values = np.round(random.lognormal(2, 1.5, rows), 2)
        columns[name] = pa.array(values, mask=random.random(rows) < MISSING)
    for name, known, weight in zip(CATEGORIES, words, weights, strict=True):
        rank = np.searchsorted(weight, random.random(rows) * weight[-1]).astype(np.int32)
        codes = pa.array(rank, mask=random.random(rows) < MISSING)
        columns[name] = pa.DictionaryArray.from_arrays(codes, known)
    return pa.table(columns)

"""Schemas and logs small enough to follow by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.spec import Spec, load_spec

SMALL_SPEC = """
name = "small"
[data]
train = "log.parquet"
label = "clicked"
group = "request"
[fields.age]
type = "numeric"
side = "context"
buckets = 3
[fields.item]
type = "categorical"
[model]
embedding_dim = 2
hidden = [4]
[train]
epochs = 2
batch_size = 32
learning_rate = 0.01
"""


def small_columns(rows: int = 200) -> dict[str, Any]:
    """Rows whose clicks depend on the item; five rows per request, nothing missing or rare."""
    random = np.random.default_rng(3)
    item = random.integers(0, 5, rows)
    return {
        "request": np.arange(rows) // 5,
        "age": random.integers(18, 80, rows).astype(float),
        "item": item,
        "clicked": (random.random(rows) < 0.1 + 0.2 * item).astype(np.int8),
    }


def write_small(
    folder: Path, columns: dict[str, Any] | None = None, overrides: tuple[str, ...] = ()
) -> Spec:
    """The small spec over a log of `columns` in `folder`."""
    pq.write_table(pa.table(columns or small_columns()), folder / "log.parquet")
    (folder / "spec.toml").write_text(SMALL_SPEC)
    return load_spec(folder / "spec.toml", overrides)

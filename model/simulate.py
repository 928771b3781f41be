"""The demo's click log: users, items and context with a known true click probability.

Each request shows one user several items. The true logit is a sum of an item's and a user's own
level, the match of the user's taste with the item's category and tags, a price that hurts more the
younger the user, and the hour; so both bucketing and interactions have something to find. Ages and
incomes hold absurd outliers and gaps, as logs do. The AUC of the true probability itself is the
best that any model can reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.atomic import new_file
from model.metrics import auc

USERS, ITEMS, CATEGORIES, TAGS, TASTES = 1_000, 500, 12, 40, 4
CANDIDATES = 10  # shown per request
MOST_TAGS = 4
CHUNK_REQUESTS = 20_000
DEVICES = np.array(["phone", "tablet", "desktop"])
SPEC_FILE = "demo.toml"

SPEC = """\
# The demo: a simulated log of requests, each showing one user ten items.
name = "demo"

[data]
train = "train.parquet"
test = "test.parquet"
label = "clicked"
group = "request_id"

[fields.user_id]
type = "categorical"
side = "context"
[fields.age]
type = "numeric"
side = "context"
buckets = 16
[fields.income]
type = "numeric"
side = "context"
buckets = { log = 16 }
[fields.hour]
type = "categorical"
side = "context"
[fields.device]
type = "categorical"
side = "context"

[fields.item_id]
type = "categorical"
[fields.category]
type = "categorical"
[fields.tags]
type = "categorical"
multi = true
max_values = 4
[fields.price]
type = "numeric"

[model]
embedding_dim = 8
hidden = [64, 32]
dropout = 0.1

[train]
batch_size = 1024
learning_rate = 0.005
epochs = 6
"""


@dataclass(frozen=True)
class World:
    """Who can meet whom: fixed attributes of all users and items, drawn once from a seed."""

    age: NDArray[np.float64]
    income: NDArray[np.float64]
    user_taste: NDArray[np.float64]
    user_level: NDArray[np.float64]
    category: NDArray[np.int64]
    price: NDArray[np.float64]
    tags: NDArray[np.int64]
    tag_count: NDArray[np.int64]
    item_level: NDArray[np.float64]
    category_taste: NDArray[np.float64]
    tag_taste: NDArray[np.float64]
    hour_level: NDArray[np.float64]


def simulate(folder: Path, rows: int, seed: int = 0) -> float:
    """Write `train.parquet`, `test.parquet` (a tenth of the rows) and `demo.toml`.

    Args:
        folder: where to; made if absent.
        rows: of both files together, rounded down to whole requests.
        seed: the same one writes the same rows.

    Returns:
        The best AUC anyone can reach on the test rows: that of the true probability.
    """
    random = np.random.default_rng(seed)
    world = _world(random)
    requests = rows // CANDIDATES
    held = max(requests // 10, 1)
    _write_log(folder / "train.parquet", world, random, 0, max(requests - held, 1))
    truth, clicked = _write_log(folder / "test.parquet", world, random, requests, held)
    with new_file(folder / SPEC_FILE) as file:
        file.write_text(SPEC, encoding="utf-8")
    return auc(truth, clicked)


def _world(random: np.random.Generator) -> World:
    tags = np.argsort(random.random((ITEMS, TAGS)), axis=1)[:, :MOST_TAGS]
    return World(
        age=np.clip(random.gamma(6, 6, USERS) + 13, 13, 95).round(),
        income=np.exp(random.normal(7.8, 0.7, USERS)).round(2),
        user_taste=random.normal(0, 1, (USERS, TASTES)),
        user_level=random.normal(0, 0.4, USERS),
        category=random.integers(0, CATEGORIES, ITEMS),
        price=np.exp(random.normal(2.5, 0.9, ITEMS)).round(2),
        tags=tags,
        tag_count=random.integers(0, MOST_TAGS + 1, ITEMS),
        item_level=random.normal(0, 0.5, ITEMS),
        category_taste=random.normal(0, 0.6, (CATEGORIES, TASTES)),
        tag_taste=random.normal(0, 0.3, (TAGS, TASTES)),
        hour_level=0.3 * np.sin(np.arange(24) / 24 * 2 * np.pi),
    )


def _write_log(
    path: Path, world: World, random: np.random.Generator, first: int, requests: int
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """True probabilities and clicks of all rows written."""
    truths, clicks = [], []
    with new_file(path) as file, pq.ParquetWriter(file, _LOG_SCHEMA, compression="zstd") as out:
        for start in range(0, requests, CHUNK_REQUESTS):
            chunk = min(CHUNK_REQUESTS, requests - start)
            columns, truth, clicked = _chunk(world, random, first + start, chunk)
            out.write_table(pa.table(columns, schema=_LOG_SCHEMA))
            truths.append(truth)
            clicks.append(clicked)
    return np.concatenate(truths), np.concatenate(clicks)


def _chunk(
    world: World, random: np.random.Generator, first: int, requests: int
) -> tuple[dict[str, Any], NDArray[np.float64], NDArray[np.int8]]:
    # A few users and items are met often, most rarely.
    user = np.repeat((USERS * random.random(requests) ** 1.5).astype(int), CANDIDATES)
    hour = np.repeat(random.integers(0, 24, requests), CANDIDATES)
    device = np.repeat(random.choice(len(DEVICES), requests, p=[0.6, 0.1, 0.3]), CANDIDATES)
    rows = requests * CANDIDATES
    item = (ITEMS * random.random(rows) ** 1.5).astype(int)
    truth = 1 / (1 + np.exp(-_true_logit(world, user, item, hour, device)))
    clicked = (random.random(rows) < truth).astype(np.int8)
    lengths = world.tag_count[item]
    kept = np.arange(MOST_TAGS) < lengths[:, None]
    tags = pa.array(np.char.add("tag", world.tags[item][kept].astype(str)))
    columns = {
        "request_id": np.repeat(np.arange(first, first + requests), CANDIDATES),
        "user_id": np.char.add("u", user.astype(str)),
        "age": _with_gaps_and_outliers(random, world.age[user]),
        "income": _with_gaps_and_outliers(random, world.income[user]),
        "hour": hour.astype(np.int8),
        "device": DEVICES[device],
        "item_id": np.char.add("i", item.astype(str)),
        "category": np.char.add("c", world.category[item].astype(str)),
        "tags": pa.ListArray.from_arrays(np.r_[0, np.cumsum(lengths)].astype(np.int32), tags),
        "price": world.price[item],
        "clicked": clicked,
    }
    return columns, truth, clicked


def _true_logit(
    world: World,
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    hour: NDArray[np.int64],
    device: NDArray[np.int64],
) -> NDArray[np.float64]:
    kept = (np.arange(MOST_TAGS) < world.tag_count[:, None])[:, :, None]
    item_taste = world.category_taste[world.category] + (
        (world.tag_taste[world.tags] * kept).sum(1) / np.maximum(world.tag_count, 1)[:, None]
    )
    match = (world.user_taste[user] * item_taste[item]).sum(1)
    thrift = (60 - world.age[user]).clip(0) / 40
    cost = np.log(world.price[item]) - 2.5
    level = world.user_level[user] + world.item_level[item] + world.hour_level[hour]
    logit: NDArray[np.float64] = -2.2 + level + match - 0.6 * thrift * cost - 0.2 * (device == 1)
    return logit


def _with_gaps_and_outliers(random: np.random.Generator, values: NDArray[np.float64]) -> pa.Array:
    noisy = np.where(random.random(len(values)) < 0.001, 1e9, values)
    return pa.array(noisy, mask=random.random(len(values)) < 0.03)


_LOG_SCHEMA = pa.schema(
    [
        ("request_id", pa.int64()),
        ("user_id", pa.string()),
        ("age", pa.float64()),
        ("income", pa.float64()),
        ("hour", pa.int8()),
        ("device", pa.string()),
        ("item_id", pa.string()),
        ("category", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("price", pa.float64()),
        ("clicked", pa.int8()),
    ]
)

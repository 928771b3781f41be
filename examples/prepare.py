"""What an example's published data still needs before training: joined and split by a stated rule.

`python -m examples.prepare NAME SOURCE TARGET` reads the data set's folder SOURCE and writes
train.parquet, valid.parquet and test.parquet into TARGET, which must lie outside the repository:
most of these data sets may not be passed on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.atomic import new_file

TRAIN_SHARE, VALID_SHARE = 0.8, 0.1


def prepare(name: str, source: Path, target: Path) -> Path:
    """Folder with the three files of an example; the source itself where nothing is to be done.

    Args:
        name: of the example, that of its spec file.
        source: folder as published.
        target: folder to write into; made when absent.
    """
    make = PREPARED.get(name)
    if make is None:
        return source
    rows, part = make(source)
    target.mkdir(parents=True, exist_ok=True)
    for number, role in enumerate(("train", "valid", "test")):
        with new_file(target / f"{role}.parquet") as file:
            pq.write_table(rows.filter(pa.array(part == number)), file)
    return target


def _criteo(source: Path) -> tuple[pa.Table, NDArray[np.int64]]:
    """The rows keep the order of the log: the first 80 % train, the next 10 % validate."""
    rows = pq.read_table(source / "data.parquet")
    return rows, _parts(np.arange(rows.num_rows) / rows.num_rows)


def _ml_1m(source: Path) -> tuple[pa.Table, NDArray[np.int64]]:
    """Ratings of every user fall into the three parts by a hash of user and movie, 8:1:1.

    The ratings carry no time, so a split in time cannot be had; rows stay grouped by user.
    """
    ratings = pq.read_table(source / "ratings.parquet")
    # Arrow's join gives no order and no lists through: rows are looked up by key instead.
    users = _by_key(pq.read_table(source / "users.parquet"), "user_id", ratings)
    movies = _by_key(pq.read_table(source / "movies.parquet"), "movie_id", ratings)
    columns = {name: ratings[name] for name in ("user_id", "movie_id", "label")}
    columns |= {name: users[name] for name in ("gender", "age_bucket", "occupation", "zip_code")}
    columns |= {name: movies[name] for name in ("year", "genres")}
    user, movie = (ratings[name].to_numpy().astype(np.uint64) for name in ("user_id", "movie_id"))
    return pa.table(columns), _parts(_hash_share(user << np.uint64(32) | movie))


def _by_key(side: pa.Table, key: str, rows: pa.Table) -> pa.Table:
    """For each of `rows` the row of `side` with the same key."""
    keys = side[key].to_numpy()
    order = np.argsort(keys)
    wanted = rows[key].to_numpy()
    place = np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)
    found = order[place]
    missing = keys[found] != wanted
    return side.take(pa.array(found, mask=missing))


def _hash_share(key: NDArray[np.uint64]) -> NDArray[np.float64]:
    """A number in [0, 1) for every key, the same on every machine (splitmix64's finaliser)."""
    mixed = key + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).astype(np.float64) / 2.0**64


def _parts(share: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.digitize(share, [TRAIN_SHARE, TRAIN_SHARE + VALID_SHARE])


PREPARED: dict[str, Callable[[Path], tuple[pa.Table, NDArray[np.int64]]]] = {
    "criteo_20f_46k": _criteo,
    "ml_1m": _ml_1m,
}


if __name__ == "__main__":
    print(prepare(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))

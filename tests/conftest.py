"""One small model that uses every kind of field, trained and exported once per session."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from starlette.testclient import TestClient

from export.bundle import export_run
from features.bundle import MODEL_DATA_FILE, MODEL_FILE, Bundle, open_bundle
from features.spec import load_spec
from model.train import train
from service.app import create_app
from service.scorer import Scorer
from service.settings import Settings

SPEC = """
name = "tiny"
[data]
train = "log.parquet"
label = "clicked"
group = "request"
[fields.age]
type = "numeric"
side = "context"
buckets = 4
[fields.income]
type = "numeric"
side = "context"
encoding = "value"
transform = "standard"
missing = "zero"
[fields.city]
type = "categorical"
side = "context"
[fields.history]
type = "categorical"
side = "context"
multi = true
max_values = 3
[fields.price]
type = "numeric"
buckets = { log = 5 }
[fields.size]
type = "numeric"
boundaries = [1, 2.5, 10]
missing = "zero"
[fields.item]
type = "categorical"
unknown = "zero"
[fields.shop]
type = "categorical"
hash_buckets = 7
[fields.tags]
type = "categorical"
multi = true
max_values = 2
pooling = "sum"
missing = "zero"
[fields.age_city]
type = "cross"
of = ["age", "city"]
hash_buckets = 40
embedding = true
[fields.city_item]
type = "cross"
of = ["city", "item"]
hash_buckets = 500
[fields.item_size_age]
type = "cross"
of = ["item", "size", "age"]
hash_buckets = 1000
[model]
embedding_dim = 4
hidden = [8, 4]
batch_norm = true
dropout = 0.1
[train]
epochs = 4
batch_size = 64
learning_rate = 0.01
[export]
calibration = "platt"
"""
ROWS = 1200


def write_log(path: Path, rows: int = ROWS, seed: int = 0) -> None:
    """A random log with every kind of column, gaps included."""
    random = np.random.default_rng(seed)

    def gaps(values: NDArray[Any]) -> pa.Array:
        return pa.array(values, mask=random.random(rows) < 0.05)

    def words(prefix: str, most: int) -> list[list[str] | None]:
        return [
            None if n == most else [f"{prefix}{k}" for k in random.integers(0, 9, n)]
            for n in random.integers(0, most + 1, rows)
        ]

    item = random.integers(0, 20, rows)
    columns = {
        "request": np.arange(rows) // 6,
        "age": gaps(random.integers(18, 80, rows).astype(float)),
        "income": gaps(random.lognormal(8, 1, rows)),
        "city": gaps(np.char.add("city", random.integers(0, 8, rows).astype(str))),
        "history": pa.array(words("h", 5), pa.list_(pa.string())),
        "price": gaps(random.lognormal(1, 2, rows)),
        "size": gaps(random.random(rows) * 12),
        "item": item,
        "shop": np.char.add("shop", random.integers(0, 30, rows).astype(str)),
        "tags": pa.array(words("t", 3), pa.list_(pa.string())),
        "clicked": (random.random(rows) < 0.05 + 0.045 * item).astype(np.int8),
    }
    pq.write_table(pa.table(columns), path)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from torch's threads, and lose much where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def imports_frozen() -> None:
    """Versions call the collector when they load; it need not walk all of torch each time.

    Once for each module, because the first export imports most of torch's compiler.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of the small model."""
    folder = tmp_path_factory.mktemp("tiny")
    write_log(folder / "log.parquet")
    (folder / "spec.toml").write_text(SPEC)
    return train(load_spec(folder / "spec.toml"), folder / "run")


@pytest.fixture(scope="session")
def bundle_path(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ROOT/NAME/VERSION` of the small model."""
    return export_run(run_folder, tmp_path_factory.mktemp("bundles") / "tiny" / "3")


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    """The small model's bundle, checked."""
    return open_bundle(bundle_path)


@pytest.fixture(scope="session")
def copied_graph(bundle: Bundle) -> Callable[..., list[str]]:
    """Stands for `write_onnx` in further exports of the small model, whose graph is the same.

    Tracing it takes two seconds; what comes of it is proved in tests/export/test_to_onnx.py.
    """

    def copy(_: object, __: object, folder: Path) -> list[str]:
        for name in (MODEL_FILE, MODEL_DATA_FILE):
            shutil.copy(bundle.path / name, folder)
        return bundle.manifest.inputs

    return copy


@pytest.fixture(scope="session")
def scorer(bundle: Bundle) -> Scorer:
    """A scorer of the small model on the CPU."""
    return Scorer(bundle, "cpu")


@pytest.fixture
def client(scorer: Scorer, bundle_path: Path) -> Iterator[TestClient]:
    """A client of the whole application, small limits."""
    settings = Settings(bundle=bundle_path.parent, max_body_bytes=1 << 20, max_rows=200)
    with TestClient(create_app(settings, scorer), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public data sets; a stranger's clone has none."""
    folder = Path(os.environ.get("CTR_DATA", "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}; set CTR_DATA")
    return folder

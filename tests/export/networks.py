"""Networks of every shape that the graph must serve, with random weights, and rows for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.graph import BundleGraph
from export.parity import Graph
from export.to_onnx import write_onnx
from features.bundle import MODEL_FILE
from features.encode import Encoded
from features.schema import BucketField, CategoricalField, Schema, Side, ValueField
from features.vocabulary import Vocabulary
from model.calibrate import Calibration
from model.config import ModelConfig
from model.deepfm import DeepFM

LETTERS = Vocabulary.of("abcdef")
AGE = BucketField(name="age", side="context", boundaries=(18.0, 30.0, 50.0))
CITY = CategoricalField(name="city", side="context", vocabulary=LETTERS)
PRICE = BucketField(name="price", boundaries=(1.0, 10.0))
SHOP = CategoricalField(name="shop", hash_buckets=5)
SCHEMAS = {
    "plain": Schema((AGE, CITY, PRICE, SHOP)),
    "weighted": Schema(
        (
            AGE,
            ValueField(name="income", side="context", missing="zero", minimum=-3, maximum=9),
            CategoricalField(
                name="history", side="context", vocabulary=LETTERS, multi=True, max_values=3
            ),
            SHOP,
            ValueField(name="mass", minimum=0, maximum=5, transform="log1p"),
            CategoricalField(
                name="tags", vocabulary=LETTERS, multi=True, max_values=4, pooling="sum"
            ),
            CategoricalField(name="kinds", vocabulary=LETTERS, multi=True, max_values=2),
            CategoricalField(name="item", vocabulary=LETTERS, missing="zero", unknown="zero"),
            PRICE,
        )
    ),
    "weighted context": Schema(
        (
            CategoricalField(
                name="history", side="context", vocabulary=LETTERS, multi=True, max_values=2
            ),
            PRICE,
        )
    ),
    "no context": Schema((PRICE, SHOP)),
    "no context, weighted": Schema((PRICE, ValueField(name="mass", minimum=0, maximum=5))),
    "without embedding": Schema(
        (
            AGE,
            CategoricalField(name="wide", hash_buckets=9, embedding=False),
            SHOP,
            CategoricalField(name="wide_city", side="context", hash_buckets=4, embedding=False),
        )
    ),
}
CONFIGS = {
    "deep": ModelConfig(embedding_dim=4, hidden=(8, 5)),
    "batch norm": ModelConfig(embedding_dim=4, hidden=(8, 5), batch_norm=True, dropout=0.3),
    "one layer": ModelConfig(embedding_dim=4, hidden=(6,)),
    "no layer": ModelConfig(embedding_dim=4, hidden=()),
}
CALIBRATIONS = {
    "none": Calibration("none"),
    "platt": Calibration("platt", slope=0.7, intercept=-0.4),
    "isotonic": Calibration("isotonic", knots=(-2.0, -0.5, 0.1, 3.0), values=(0.05, 0.2, 0.2, 0.9)),
    "isotonic of one knot": Calibration("isotonic", knots=(0.5,), values=(0.3,)),
    "shifted": Calibration("platt", slope=1.2, intercept=0.1, negative_sampling_rate=0.001),
    "shifted isotonic": Calibration(
        "isotonic", knots=(-1.0, 2.0), values=(0.1, 0.9), negative_sampling_rate=0.01
    ),
}


def build(schema: Schema, config: ModelConfig = CONFIGS["deep"]) -> DeepFM:
    """A network whose weights, and batch norm's observations, are all away from their start."""
    generator = torch.Generator().manual_seed(0)
    network = DeepFM(schema, config)
    with torch.no_grad():
        for name, weight in network.state_dict().items():
            if name.endswith("running_var"):
                weight.uniform_(0.2, 3, generator=generator)
            elif weight.dtype == torch.float32:
                weight.normal_(std=0.4, generator=generator)
    return network.eval()


def rows_of(schema: Schema, side: Side, rows: int, seed: int = 0) -> Encoded:
    """Random rows that hold every index of the side's fields once there are rows enough."""
    random = np.random.default_rng(seed)
    columns = []
    for field in schema.side(side):
        owned = schema.ranges[field.name]
        columns += [
            owned.start + (np.arange(rows) + slot) % len(owned) for slot in range(field.slots)
        ]
    index = np.stack(columns, 1) if columns else np.empty((rows, 0), np.int64)
    weight: NDArray[np.float32] | None = None
    if schema.is_weighted(side):
        weight = random.normal(size=index.shape).astype(np.float32)
        weight[random.random(index.shape) < 0.2] = 0
    return Encoded(index, weight)


def exported(
    folder: Path, network: DeepFM, schema: Schema, calibration: Calibration
) -> tuple[Graph, list[str]]:
    """The network on ONNX Runtime, and the names of its inputs."""
    names = write_onnx(BundleGraph(network, schema, calibration), schema, folder)
    return Graph(folder / MODEL_FILE, schema), names

"""The serving job that every benchmark runs: a Criteo-shaped model and request bodies, seeded.

39 fields: 13 numbers in 32 buckets and 26 categorical fields that hold 1,000,000 categories
together; 20 of them context (7 numbers), 19 candidate. Embedding 16, dense layers 3 x 400. The
weights are random: speed does not depend on what they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.bundle import export_run
from export.parity import network_logit, split_sides
from features.atomic import new_folder
from features.schema import BucketField, CategoricalField, Field, Schema, Side
from features.spec import Spec, spec_from_json
from features.vocabulary import Vocabulary
from model.config import configs
from model.deepfm import DeepFM
from model.run import Judged, Run, Sample, save_run

NUMBERS, CATEGORICAL, CONTEXT_NUMBERS, CONTEXT_CATEGORICAL = 13, 26, 7, 13
CATEGORIES = 1_000_000
BODIES = 256
SHAPES = {"score 1": 1, "score 32": 32, "rank 100": 100, "rank 1000": 1000}
UNKNOWN_SHARE, MISSING_SHARE = 0.01, 0.05


def schema(categories: int = CATEGORIES) -> Schema:
    """The 39 fields; vocabulary sizes grow geometrically from 10 to about a fifth of all."""
    random = np.random.default_rng(0)
    sizes = np.geomspace(10, categories / 4, CATEGORICAL)
    sizes = np.maximum((sizes / sizes.sum() * categories).astype(int), 4)
    fields: list[Field] = []
    for number in range(NUMBERS):
        edges = np.sort(random.lognormal(2, 1.5, 31))
        fields.append(BucketField(name=f"I{number + 1}", side=_side(number, CONTEXT_NUMBERS),
                                  boundaries=tuple(edges.tolist())))  # fmt: skip
    for number, size in enumerate(sizes.tolist()):
        fields.append(
            CategoricalField(
                name=f"C{number + 1}",
                side=_side(number, CONTEXT_CATEGORICAL),
                vocabulary=Vocabulary.of(tuple(_category(number, rank) for rank in range(size))),
            )
        )
    return Schema(tuple(fields))


def build(
    folder: Path, precision: str = "fp32", categories: int = CATEGORIES, version: int = 1
) -> Path:
    """The job's bundle at `folder/PRECISION/VERSION`, exported from `folder/run`; made once."""
    target = folder / precision / str(version)
    if not (folder / "run").exists():
        _make_run(folder / "run", categories)
    return target if target.exists() else export_run(folder / "run", target, precision)


def _make_run(folder: Path, categories: int) -> None:
    fields = schema(categories)
    spec = _spec(fields)
    model, train = configs(spec)
    torch.manual_seed(0)
    network = DeepFM(fields, model).eval()
    with torch.no_grad():  # embeddings as large as learned ones, so that scores differ
        network.embedding.weight.mul_(10)
    random = np.random.default_rng(0)
    ranges = [fields.ranges[f.name] for side in ("context", "candidate") for f in fields.side(side)]
    sample = np.stack([random.integers(r.start, r.stop, 4096) for r in ranges], 1)
    context, candidate = split_sides(fields, sample.astype(np.int32), None)
    logit = network_logit(network, context, candidate)
    label = (random.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    run = Run(
        spec=spec,
        schema=fields,
        table=fields.build_table(),
        network=network,
        metrics={"valid": {}, "test": {}},
        data_fingerprint="",
        counts=np.ones(fields.size, np.int64),
        rows=1,
        valid=Judged(logit, label, None),
        test=None,
        sample_index=sample.astype(np.int32),
        sample_weight=None,
        judged=Sample(sample.astype(np.int32), None, label),
    )
    with new_folder(folder) as draft:
        save_run(run, draft, model, train)


def bodies(shape: str, count: int = BODIES) -> list[bytes]:
    """Distinct request bodies of one shape."""
    random = np.random.default_rng(1)
    fields = schema()
    rows = SHAPES[shape]
    made = []
    for _ in range(count):
        if shape.startswith("score"):
            instances = [_row(fields.fields, random) for _ in range(rows)]
            document: dict[str, Any] = {"instances": instances}
        else:
            candidates = [
                {"id": f"item{number}", "features": _row(fields.side("candidate"), random)}
                for number in range(rows)
            ]
            document = {"context": _row(fields.side("context"), random), "candidates": candidates}
        made.append(json.dumps(document).encode())
    return made


def write_bodies(folder: Path, shape: str, count: int = BODIES) -> Path:
    """`bodies` in a file of `folder`, one a line."""
    target = folder / f"{shape}.{count}.jsonl"
    target.write_bytes(b"\n".join(bodies(shape, count)) + b"\n")
    return target


def path_of(shape: str) -> str:
    """The URL path that a shape is posted to."""
    return "/" + shape.split(maxsplit=1)[0]


def _side(number: int, contexts: int) -> Side:
    return "context" if number < contexts else "candidate"


def _category(field: int, rank: int) -> str:
    return f"{(rank * 2654435761 + field * 40503) & 0xFFFFFFFF:08x}"


def _row(fields: tuple[Field, ...], random: np.random.Generator) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in fields:
        if random.random() < MISSING_SHARE:
            continue
        if isinstance(field, BucketField):
            row[field.name] = round(float(random.lognormal(2, 1.5)), 2)
        elif isinstance(field, CategoricalField):
            known = field.size - field.reserved
            # A power of a uniform number: some categories come often, most hardly ever.
            rank = int(known * random.random() ** 3)
            is_unknown = random.random() < UNKNOWN_SHARE
            row[field.name] = "unseen" if is_unknown else _category(int(field.name[1:]) - 1, rank)
    return row


def _spec(fields: Schema) -> Spec:
    document: dict[str, Any] = {
        "name": "bundle",
        "data": {"train": "none", "label": "label"},
        "fields": {
            field.name: {
                "type": "numeric" if isinstance(field, BucketField) else "categorical",
                "side": field.side,
            }
            for field in fields.fields
        },
        "model": {"embedding_dim": 16, "hidden": [400, 400, 400]},
        "train": {},
        "export": {"calibration": "none"},
    }
    return spec_from_json(document)

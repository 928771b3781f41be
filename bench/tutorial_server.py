"""The service as a tutorial would write it: pydantic rows, a dict per field, default runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel, create_model

from features.schema import BucketField, CategoricalField
from features.schema_file import load_schema

bundle = Path(os.environ["BENCH_BUNDLE"])
schema, _ = load_schema(bundle)
session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
app = FastAPI()


def row_model(name: str, fields: Any) -> type[BaseModel]:
    """Model of one row of some fields."""
    types = {f.name: (float | None if isinstance(f, BucketField) else str | None) for f in fields}
    members: dict[str, Any] = {name: (kind, None) for name, kind in types.items()}
    return create_model(name, **members)


Instance = row_model("Instance", schema.fields)
Context = row_model("Context", schema.side("context"))
Features = row_model("Features", schema.side("candidate"))


class ScoreBody(BaseModel):
    """Rows to score."""

    instances: list[Instance]  # type: ignore[valid-type]


class Candidate(BaseModel):
    """One candidate."""

    id: str
    features: Features  # type: ignore[valid-type]


class RankBody(BaseModel):
    """Candidates to rank."""

    context: Context  # type: ignore[valid-type]
    candidates: list[Candidate]


vocabularies = {
    field.name: {text: number for number, text in enumerate(field.vocabulary)}
    for field in schema.fields
    if isinstance(field, CategoricalField) and field.vocabulary is not None
}


def encode(fields: Any, rows: list[Any]) -> Any:
    """`[rows, fields]` indices, value by value."""
    index = np.zeros((len(rows), len(fields)), np.int64)
    for n, row in enumerate(rows):
        for slot, field in enumerate(fields):
            value = getattr(row, field.name)
            first = schema.ranges[field.name].start
            if value is None:
                index[n, slot] = first
            elif isinstance(field, BucketField):
                index[n, slot] = first + 1 + np.searchsorted(field.boundaries, value, "right")
            else:
                index[n, slot] = first + 2 + vocabularies[field.name].get(value, -1)
    return index


def run(context: Any, candidate: Any, context_row: Any) -> Any:
    """Logits and scores."""
    feed = {"context": context, "candidate": candidate, "context_row": context_row}
    return session.run(["logit", "score"], feed)


@app.get("/readyz")
def readyz() -> dict[str, str]:
    """Whether it answers."""
    return {"status": "ready"}


@app.post("/score")
def score(body: ScoreBody) -> dict[str, Any]:
    """Scores of rows."""
    context = encode(schema.side("context"), body.instances)
    candidate = encode(schema.side("candidate"), body.instances)
    _, scores = run(context, candidate, np.arange(len(body.instances)))
    return {"scores": scores.tolist()}


@app.post("/rank")
def rank(body: RankBody) -> dict[str, Any]:
    """Candidates in the order of their logits."""
    context = encode(schema.side("context"), [body.context])
    candidate = encode(schema.side("candidate"), [one.features for one in body.candidates])
    logit, scores = run(context, candidate, np.zeros(len(body.candidates), np.int64))
    order = np.argsort(-logit, kind="stable").tolist()
    items = [
        {"id": body.candidates[place].id, "rank": number, "score": float(scores[place])}
        for number, place in enumerate(order, 1)
    ]
    return {"items": items}

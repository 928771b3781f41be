"""Requests, and what each version that may answer them must say; versions on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.schema import BucketField, Schema
from tests.service.linear import SCHEMA, linear_logit, write_bundle

VERSIONS = range(1, 6)
# Even versions have another order of fields and one more: schema and graph must switch together.
OTHER = Schema(
    (*reversed(SCHEMA.fields), BucketField(name="new", side="context", boundaries=(0.0, 1.0)))
)
_TOLERANCE = 1e-5
_CANDIDATES = 6
_QUESTIONS = 16


@dataclass(frozen=True)
class Question:
    """A request.

    Args:
        path: `/score` or `/rank`.
        body: JSON.
        scores: by version, in the order of the rows.
    """

    path: str
    body: bytes
    scores: dict[int, list[float]]

    def is_right(self, answer: bytes) -> bool:
        """Whether the scores are those of the version that the answer names."""
        document = json.loads(answer)
        expected = self.scores[document["version"]]
        if self.path == "/score":
            found = document["scores"]
        else:
            told = [item["score"] for item in document["items"]]
            if told != sorted(told, reverse=True):
                return False
            of = {int(item["id"]): item["score"] for item in document["items"]}
            found = [of[row] for row in range(len(of))]
        return len(found) == len(expected) and bool(np.allclose(found, expected, atol=_TOLERANCE))


def schema_of(version: int) -> Schema:
    return SCHEMA if version % 2 else OTHER


def write_version(folder: Path, version: int, shift: float = 0.0) -> None:
    """As export does: complete before it has its name."""
    draft = folder.parent / "draft" / folder.name / str(version)
    write_bundle(draft, schema_of(version), shift, seed=version)
    draft.rename(folder / str(version))


def questions() -> list[Question]:
    """Half of each route."""
    return [_question(number, ("/score", "/rank")[number % 2]) for number in range(_QUESTIONS)]


def _question(number: int, path: str) -> Question:
    random = np.random.default_rng(number)
    context = {"age": int(random.integers(10, 70)), "city": str(random.choice(["Paris", "Rome"]))}
    items: list[dict[str, Any]] = [
        {
            "price": float(random.lognormal(2, 2)),
            "mass": float(random.uniform(0, 6)),
            "shop": f"shop{random.integers(30)}",
            "tags": [str(random.choice(["red", "blue"])), 7],
        }
        for _ in range(_CANDIDATES)
    ]
    candidates = [{"id": str(row), "features": item} for row, item in enumerate(items)]
    ranking = {"context": context, "candidates": candidates}
    body = ranking if path == "/rank" else {"instances": [context | item for item in items]}
    scores = {
        version: (1 / (1 + np.exp(-linear_logit(schema_of(version), ranking, version)))).tolist()
        for version in VERSIONS
    }
    return Question(path, json.dumps(body).encode(), scores)

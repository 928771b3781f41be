"""Short ways to encode the values of one field."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.encode import Encoded, Encoder
from features.schema import CategoricalField, Field, Schema
from features.vocabulary import Vocabulary

VOCABULARY = Vocabulary.of(("a", "1", "true"))


def encoder_of(*fields: Field) -> Encoder:
    schema = Schema(fields)
    return Encoder(schema, "candidate", schema.build_table())


def encode(field: Field, values: list[Any]) -> Encoded:
    """Rows of one field from JSON values."""
    encoder = encoder_of(field)
    columns, _ = encoder.columns_from_values({field.name: values})
    return encoder.encode(columns, len(values))


def encode_numbers(field: Field, values: list[float] | NDArray[np.float64]) -> Encoded:
    """Rows of one numeric field from float64, NaN and infinity included."""
    return encoder_of(field).encode({field.name: np.array(values, np.float64)}, len(values))


def indices(encoded: Encoded) -> list[int]:
    return [int(row[0]) for row in encoded.index]


def weights(encoded: Encoded) -> list[list[float]]:
    assert encoded.weight is not None
    return [[float(weight) for weight in row] for row in encoded.weight]


def multi_field(**options: Any) -> CategoricalField:
    options = {"max_values": 3, "vocabulary": VOCABULARY, **options}
    return CategoricalField(name="f", multi=True, **options)

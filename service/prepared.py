"""A request ready for the model, whichever way its body was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from features.encode import Encoded


@dataclass(frozen=True)
class Prepared:
    """Indices and weights of a body, and what its answer needs besides.

    Args:
        context: one row for all candidates (`/rank`), or one for each (`/score`).
        candidate: the rows to score.
        unknown: name the schema does not know -> in how many rows it stood.
        truncated: multi field -> how many of its lists were cut to `max_values`.
        ids: `[rows]`, as sent; none for `/score`.
        top_k: how many to return; None for all.
        pairwise: whether win probabilities were asked for.
        partial: whether the best of the first candidates will do.
    """

    context: Encoded
    candidate: Encoded
    unknown: Mapping[str, int]
    truncated: Mapping[str, int]
    ids: Sequence[str | int] = ()
    top_k: int | None = None
    pairwise: bool = False
    partial: bool = False

    @property
    def rows(self) -> int:
        """Number of candidates."""
        return len(self.candidate.index)

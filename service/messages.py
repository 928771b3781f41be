"""Request bodies -> raw columns, by structs generated from the schema.

The fast way: msgspec decodes a body straight into structs that have one attribute per field, and
refuses whatever is not in them. Any refusal takes the slow way: the body is decoded generically and
`service.problems` finds every place that is wrong. When nothing is wrong, the body held names that
the schema does not know: they are learned (at most `MOST_LEARNED`, none of absurd length)
and become attributes whose values are thrown away, so that a field being rolled in
is counted without a second parse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from features.schema import CategoricalField, Field, Schema
from service.limits import MOST_AROUND, Limits
from service.nesting import is_deeper

MOST_LEARNED = 64
LONGEST_LEARNED = 200
Counts = dict[str, int]


@dataclass(frozen=True)
class ScoreRequest:
    """A body of `/score`.

    Args:
        values: field name -> `[rows]` JSON values; None or no such name where missing.
        rows: number of instances.
        unknown: name the schema does not know -> in how many rows it stood.
    """

    values: Mapping[str, Sequence[Any]]
    rows: int
    unknown: Counts = field(default_factory=dict)


@dataclass(frozen=True)
class RankRequest:
    """A body of `/rank`.

    Args:
        context: field name -> one JSON value.
        candidates: field name -> `[rows]` JSON values.
        ids: `[rows]`, as sent.
        top_k: how many to return; None for all.
        pairwise: whether win probabilities were asked for.
        partial: whether the best of the first candidates will do.
        unknown: as `ScoreRequest`.
    """

    context: Mapping[str, Sequence[Any]]
    candidates: Mapping[str, Sequence[Any]]
    ids: Sequence[str | int]
    top_k: int | None = None
    pairwise: bool = False
    partial: bool = False
    unknown: Counts = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of candidates."""
        return len(self.ids)


def value_type(member: Field, limits: Limits) -> Any:
    """What one JSON value of a field may be."""
    if not isinstance(member, CategoricalField):
        return float | None
    category: Any = _text(limits) | int | float | bool | None
    if not member.multi:
        return category
    return Annotated[_list_of(category), Meta(max_length=limits.elements)] | None


def _text(limits: Limits) -> Any:
    return Annotated[str, Meta(max_length=limits.text)]


def _list_of(kind: Any) -> Any:
    return list[kind]


class RowMessages:
    """Structs of rows and columns of some fields.

    Args:
        fields: known names.
        learned: unknown names met before.
        is_strict: refuse all other names.
        limits: of texts and lists.
    """

    def __init__(
        self, fields: Sequence[Field], learned: Sequence[str], is_strict: bool, limits: Limits
    ) -> None:
        kinds = [(member.name, value_type(member, limits)) for member in fields]
        self.names = [member.name for member in fields]
        self.learned = learned
        self.deepest = limits.depth - MOST_AROUND
        self.row = _row_struct(
            "Row",
            [(name, kind, None) for name, kind in kinds],
            learned,
            is_strict,
        )
        self.columns = _row_struct(
            "Columns",
            [(name, _list_of(kind) | UnsetType, UNSET) for name, kind in kinds],
            learned,
            is_strict,
        )

    def from_rows(self, rows: Sequence[Struct]) -> tuple[dict[str, Sequence[Any]], Counts]:
        """Row structs -> field name -> values, and the unknown names met.

        Raises:
            msgspec.ValidationError: a value of an unknown name is nested deeply.
        """
        columns = list(zip(*map(msgspec.structs.astuple, rows), strict=True))
        known: dict[str, Sequence[Any]] = dict(zip(self.names, columns, strict=False))
        unknown = {}
        for name, column in zip(self.learned, columns[len(self.names) :], strict=False):
            if met := len(column) - column.count(UNSET):
                self._bound_depth(column)
                unknown[name] = met
        return known, unknown

    def from_columns(
        self, columns: Struct, rows: int | None = None
    ) -> tuple[dict[str, Sequence[Any]], Counts, int]:
        """A columns struct -> field name -> values, the unknown names met, the number of rows.

        Raises:
            msgspec.ValidationError: the columns differ in length, or there are none to count, or
                an unknown one is nested deeply.
        """
        values = msgspec.structs.astuple(columns)
        known = {
            name: column
            for name, column in zip(self.names, values, strict=False)
            if column is not UNSET
        }
        lengths = {len(column) for column in known.values()}
        if rows is not None:
            lengths.add(rows)
        if len(lengths) != 1:
            raise msgspec.ValidationError("columns must be there and equally long")
        rows = lengths.pop()
        self._bound_depth(values[len(self.names) :])
        found = zip(self.learned, values[len(self.names) :], strict=False)
        unknown = {name: rows for name, column in found if rows and column is not UNSET}
        return known, unknown, rows

    def _bound_depth(self, unknown: Sequence[Any]) -> None:
        """Leave it to the slow way to judge values that may be too deep: nothing types them.

        Raises:
            msgspec.ValidationError: one may be.
        """
        if is_deeper(unknown, self.deepest):
            raise msgspec.ValidationError("values of an unknown name are nested deeply")


class ScoreMessages:
    """Decodes `/score` bodies; as `RowMessages`, for all fields."""

    def __init__(
        self, schema: Schema, learned: Sequence[str], is_strict: bool, limits: Limits
    ) -> None:
        self.rows = RowMessages(schema.fields, learned, is_strict, limits)
        row: Any = self.rows.row
        self.body = _body_struct(
            "ScoreBody",
            ("instances", list[row] | UnsetType, UNSET),
            ("columns", self.rows.columns | UnsetType, UNSET),
        )
        self.decoder = msgspec.json.Decoder(self.body)

    def decode(self, body: bytes) -> ScoreRequest:
        """Request of a body.

        Raises:
            msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it is not as it must be.
        """
        return self.request(self.decoder.decode(body))

    def request(self, body: Any) -> ScoreRequest:
        """Request of a decoded body."""
        if (body.instances is UNSET) == (body.columns is UNSET):
            raise msgspec.ValidationError("either instances or columns")
        if body.instances is not UNSET:
            values, unknown = self.rows.from_rows(body.instances)
            return ScoreRequest(values, len(body.instances), unknown)
        values, unknown, rows = self.rows.from_columns(body.columns)
        return ScoreRequest(values, rows, unknown)


class RankMessages:
    """Decodes `/rank` bodies; as `RowMessages`, a struct for each side."""

    def __init__(
        self, schema: Schema, learned: Sequence[str], is_strict: bool, limits: Limits
    ) -> None:
        self.context = RowMessages(schema.side("context"), learned, is_strict, limits)
        self.candidate = RowMessages(schema.side("candidate"), learned, is_strict, limits)
        identifier = _text(limits) | int
        item: Any = _body_struct(
            "Candidate",
            ("id", identifier, msgspec.NODEFAULT),
            ("features", self.candidate.row, self.candidate.row()),
        )
        columns = _body_struct(
            "CandidateColumns",
            ("id", _list_of(identifier), msgspec.NODEFAULT),
            ("features", self.candidate.columns, self.candidate.columns()),
        )
        self.body = _body_struct(
            "RankBody",
            ("candidates", list[item] | columns, msgspec.NODEFAULT),
            ("context", self.context.row | None, None),
            ("top_k", Annotated[int, Meta(ge=1)] | UnsetType, UNSET),
            ("pairwise", bool, False),
            ("partial", bool, False),
        )
        self.decoder = msgspec.json.Decoder(self.body)

    def decode(self, body: bytes) -> RankRequest:
        """Request of a body.

        Raises:
            msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it is not as it must be.
        """
        return self.request(self.decoder.decode(body))

    def request(self, body: Any) -> RankRequest:
        """Request of a decoded body."""
        context, unknown = self.context.from_rows([body.context or self.context.row()])
        found = body.candidates
        if isinstance(found, list):
            ids = [item.id for item in found]
            values, more = self.candidate.from_rows([item.features for item in found])
        else:
            ids = found.id
            values, more, _ = self.candidate.from_columns(found.features, len(ids))
        for name, count in more.items():
            unknown[name] = unknown.get(name, 0) + count
        top_k = None if body.top_k is UNSET else body.top_k
        return RankRequest(context, values, ids, top_k, body.pairwise, body.partial, unknown)


def _row_struct(
    name: str, attributes: Sequence[tuple[str, Any, Any]], learned: Sequence[str], is_strict: bool
) -> type[Struct]:
    """A struct of fields; their names may be any text, so its attributes are numbered."""
    members = [*attributes, *((unknown, Any, UNSET) for unknown in learned)]
    return msgspec.defstruct(
        name,
        [(f"f{number}", kind, default) for number, (_, kind, default) in enumerate(members)],
        rename={f"f{number}": json_name for number, (json_name, _, _) in enumerate(members)},
        forbid_unknown_fields=is_strict,
        kw_only=True,
        frozen=True,
        gc=False,
    )


def _body_struct(name: str, *attributes: tuple[str, Any, Any]) -> type[Struct]:
    return msgspec.defstruct(
        name, attributes, forbid_unknown_fields=True, kw_only=True, frozen=True, gc=False
    )

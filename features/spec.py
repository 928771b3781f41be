"""The spec: one TOML file in which a person says what the data is and how each field is encoded.

This file reads `name`, `[data]`, `[export]` and, by the kinds of `features.field_spec` and
`features.cross_spec`, `[fields.*]`; `[model]` and `[train]` belong to `model.config`, which builds
them with the same `section`. An unknown key is an error that names the nearest valid one, so that a
misspelt option can never be silently ignored.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import msgspec

from features.cross_spec import CrossSpec, check_parts
from features.errors import ConfigError
from features.field_spec import CategoricalSpec, FieldSpec, NumericSpec, may_be_crossed
from features.names import RULE, needs_escape

T = TypeVar("T")
Table = Mapping[str, Any]

_SECTIONS = ("name", "data", "fields", "model", "train", "export")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where the click log lies and what its columns mean; docs/spec.md tells every key."""

    root: str = "."
    train: str
    valid: str | None = None
    test: str | None = None
    label: str
    group: str | None = None
    weight: str | None = None
    negative_sampling_rate: float = 1.0
    list_separator: str = "|"

    def __post_init__(self) -> None:
        if not 0 < self.negative_sampling_rate <= 1:
            raise ValueError("negative_sampling_rate must lie above 0 and at most at 1")
        if not self.list_separator:
            raise ValueError("list_separator must not be empty")

    def location(self, path: str) -> str:
        """A path of this section with `root` in front, unless it is absolute or a URL."""
        if "://" in path or Path(path).is_absolute():
            return path
        return self.root + "/" * (not self.root.endswith("/")) + path


_FIELD_TYPES: dict[str, type[FieldSpec | CrossSpec]] = {
    "numeric": NumericSpec,
    "categorical": CategoricalSpec,
    "cross": CrossSpec,
}


@dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """How a run becomes a bundle."""

    calibration: Literal["auto", "none", "platt", "isotonic"] = "auto"
    precision: Literal["fp32", "int8"] = "fp32"


@dataclass(frozen=True)
class Spec:
    """A whole spec, checked.

    Args:
        fields: those that have a column.
        crosses: those that are derived from fields.
        document: the TOML as read, with overrides applied, `name` and an absolute `data.root`.
        model: the `[model]` table as written; `model.config` gives it meaning.
        train: the `[train]` table as written; `model.config` gives it meaning.
    """

    name: str
    data: DataSpec
    fields: tuple[FieldSpec, ...]
    crosses: tuple[CrossSpec, ...]
    model: Table
    train: Table
    export: ExportSpec
    document: Table

    def to_json(self) -> dict[str, Any]:
        """The document, for `spec_from_json`."""
        return json.loads(json.dumps(self.document))  # type: ignore[no-any-return]


def load_spec(path: str | Path, overrides: Iterable[str] = ()) -> Spec:
    """Spec of a TOML file.

    Args:
        path: the file; relative data paths start from its folder unless `data.root` is set.
        overrides: `section.key=value`, the value as TOML or else taken as text; a relative
            `data.root` given here starts from the working folder.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, missing or out of range.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot read the spec: {reason}") from error
    data = document.setdefault("data", {})
    if isinstance(data, dict):
        data["root"] = _resolved(data.get("root", "."), path.parent)
    for override in overrides:
        _merge(document, _parse_override(override))
    if isinstance(data, dict):
        data["root"] = _resolved(data["root"], Path())
    document.setdefault("name", path.stem)
    try:
        return spec_from_json(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error


def spec_from_json(document: Table) -> Spec:
    """Spec of an already parsed document, as `Spec.to_json` gives it.

    Raises:
        ConfigError: a key is unknown, missing or out of range.
    """
    _check_keys(document, _SECTIONS, "")
    name = document.get("name")
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise ConfigError("name must be a non-empty text without '/' that does not begin with '.'")
    fields, crosses = _fields(_table(document, "fields"))
    if not any(field.side == "candidate" for field in fields):
        raise ConfigError("no field is on the candidate side: there is nothing to rank")
    data = section(DataSpec, _table(document, "data"), "data")
    for role in ("label", "weight"):
        if getattr(data, role) in {field.name for field in fields}:
            raise ConfigError(f"data.{role} names the column of a field")
    columns = [column for column in (data.label, data.group, data.weight) if column is not None]
    if len(set(columns)) < len(columns):
        raise ConfigError("data.label, data.group and data.weight must name different columns")
    return Spec(
        name=name,
        data=data,
        fields=fields,
        crosses=crosses,
        model=_table(document, "model"),
        train=_table(document, "train"),
        export=section(ExportSpec, _table(document, "export"), "export"),
        document=document,
    )


def section(cls: type[T], table: Table, where: str) -> T:
    """A frozen dataclass from a TOML table, its annotations enforced.

    Args:
        cls: the dataclass; a ValueError from its `__post_init__` becomes the error's text.
        table: the keys as written.
        where: what to call the table in an error, e.g. `train`.

    Raises:
        ConfigError: a key is unknown (naming the nearest valid one), absent, of the wrong type
            or out of range.
    """
    _check_keys(table, [field.name for field in dataclasses.fields(cls)], where)  # type: ignore[arg-type]
    try:
        return msgspec.convert(table, cls)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$")
        place = place.rstrip("`")
        raise ConfigError(f"{where}{place}: {_in_words_of_toml(text, cls, place)}") from error


def _in_words_of_toml(text: str, cls: type, place: str) -> str:
    """What msgspec says of a value, in the words of the file that a person wrote."""
    if text.startswith("Invalid enum value"):
        choices = re.findall(r"'([^']*)'", str(get_type_hints(cls).get(place[1:], "")))
        return f"{text}, expected one of {', '.join(choices)}"
    text = text.replace("Object missing required field", "there is no key")
    return text.replace("object", "table").replace(" | null", "")


def _fields(tables: Table) -> tuple[tuple[FieldSpec, ...], tuple[CrossSpec, ...]]:
    members = [_field(name, table) for name, table in tables.items()]
    fields = tuple(member for member in members if not isinstance(member, CrossSpec))
    crosses = tuple(member for member in members if isinstance(member, CrossSpec))
    crossable = [field.name for field in fields if may_be_crossed(field)]
    for cross in crosses:
        check_parts(cross, crossable, tables.keys() - set(crossable))
    return fields, crosses


def _field(name: str, table: object) -> FieldSpec | CrossSpec:
    if needs_escape(name):
        raise ConfigError(f"fields.{json.dumps(name)}: {RULE}")
    where = f"fields.{name}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, [{where}]")
    rest = dict(table)
    kind = rest.pop("type", None)
    if kind is None:
        raise ConfigError(f"{where}.type is missing, expected one of {', '.join(_FIELD_TYPES)}")
    if kind not in _FIELD_TYPES:
        raise ConfigError(f"{where}.type must be one of {', '.join(_FIELD_TYPES)}")
    if "name" in rest:
        raise ConfigError(f"{where}: unknown key 'name'; the table's own name is the field's")
    if isinstance(rest.get("buckets"), dict):
        # msgspec passes over keys it does not know in a table that may also be a number.
        _check_keys(rest["buckets"], ["log"], f"{where}.buckets")
    return section(_FIELD_TYPES[kind], {"name": name, **rest}, where)


def _table(document: Table, key: str) -> Table:
    table = document.get(key, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{key} must be a table, [{key}]")
    return table


def _check_keys(table: Table, valid: Iterable[str], where: str) -> None:
    valid = list(valid)
    for key in table:
        if key not in valid:
            near = difflib.get_close_matches(key, valid, 1, 0.0)
            place = f"{where}.{key}" if where else key
            raise ConfigError(f"unknown key '{place}'; the nearest valid one is '{near[0]}'")


def _resolved(root: object, base: Path) -> object:
    """An absolute `data.root`; a URL, and what is no text, as it is."""
    return root if not isinstance(root, str) or "://" in root else str((base / root).resolve())


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"override '{text}' is not of the form section.key=value")
    for written in (value, json.dumps(value.strip())):
        try:
            return tomllib.loads(f"{key} = {written}")
        except tomllib.TOMLDecodeError:
            continue
    raise ConfigError(f"override '{text}': '{key}' is not a key such as train.epochs")


def _merge(document: dict[str, Any], extra: Table) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            _merge(document[key], value)
        else:
            document[key] = value

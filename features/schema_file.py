"""The schema on disk: JSON for people and numpy arrays for what is large; no pickle.

`schema.json` holds the fields; a vocabulary beyond `LARGEST_INLINE` categories lies, with all other
such ones, in `vocabulary.text.npy` and `vocabulary.ends.npy`, and the JSON says which part is
whose. `table.npy` is the built hash table, so that a service maps it instead of building it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.cross import CrossField
from features.errors import SchemaError
from features.schema import BucketField, CategoricalField, Field, Schema, ValueField
from features.table import HashTable
from features.vocabulary import Vocabulary

SCHEMA_FILE = "schema.json"
TABLE_FILE = "table.npy"
TEXT_FILE = "vocabulary.text.npy"
ENDS_FILE = "vocabulary.ends.npy"
SCHEMA_FORMAT = 2
# Format 1 knew no crosses.
_READABLE_FORMATS = (1, 2)
LARGEST_INLINE = 1000

_KINDS: dict[str, type[Field]] = {
    "bucket": BucketField,
    "value": ValueField,
    "categorical": CategoricalField,
}


def save_schema(schema: Schema, folder: Path) -> None:
    """Write the schema's files into an existing folder, replacing what they held."""
    large = [
        member.vocabulary
        for member in schema.fields
        if isinstance(member, CategoricalField) and len(member.vocabulary) > LARGEST_INLINE
    ]
    if large:
        text = np.frombuffer(b"".join(vocabulary.packed() for vocabulary in large), np.uint8)
        np.save(folder / TEXT_FILE, text)
        np.save(folder / ENDS_FILE, np.concatenate([vocabulary.ends for vocabulary in large]))
    table = schema.build_table()
    np.save(folder / TABLE_FILE, table.slots)
    document = {
        "format": SCHEMA_FORMAT,
        "seed": schema.seed,
        "homes": table.homes,
        "fields": _fields_to_json(schema),
        "crosses": _crosses_to_json(schema),
    }
    written = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (folder / SCHEMA_FILE).write_text(written, encoding="utf-8")


def load_schema(folder: Path) -> tuple[Schema, HashTable]:
    """Schema and hash table of a folder, arrays memory-mapped.

    Raises:
        SchemaError: a file is absent, unreadable, of another format, or contradicts another.
    """
    try:
        document = json.loads((folder / SCHEMA_FILE).read_text(encoding="utf-8"))
        if document["format"] not in _READABLE_FORMATS:
            raise SchemaError(
                f"{folder / SCHEMA_FILE}: schema format {document['format']}, "
                f"this version reads {' and '.join(map(str, _READABLE_FORMATS))}"
            )
        fields = tuple(_fields_from_json(document["fields"], folder))
        crosses = msgspec.convert(document.get("crosses", []), tuple[CrossField, ...])
        schema = Schema(fields, msgspec.convert(document["seed"], int), crosses)
        table = HashTable(_map(folder / TABLE_FILE), msgspec.convert(document["homes"], int))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise SchemaError(f"{folder}: the schema cannot be read: {error!r}") from error
    if int(table.slots[:, 1].max()) >= schema.size:
        raise SchemaError(f"{folder / TABLE_FILE}: an index lies beyond the schema's {schema.size}")
    known = sum(len(f.vocabulary) for f in fields if isinstance(f, CategoricalField))
    if known * 2 > max(table.homes, 2):
        raise SchemaError(f"{folder / TABLE_FILE}: too small for {known} categories")
    return schema, table


def fingerprint(schema: Schema) -> str:
    """SHA-256, in hex, of everything that decides how a value is encoded."""
    fields = [
        {**member, "vocabulary": None} if "vocabulary" in member else member
        for member in _fields_to_json(schema)
    ]
    digest = hashlib.sha256(json.dumps([schema.seed, fields]).encode())
    for member in schema.fields:
        if isinstance(member, CategoricalField):
            digest.update(member.vocabulary.ends.astype("<i8").tobytes())
            digest.update(member.vocabulary.packed())
    if schema.crosses:  # without any, the fingerprint is that of format 1
        digest.update(json.dumps(_crosses_to_json(schema)).encode())
    return digest.hexdigest()


def _fields_to_json(schema: Schema) -> list[dict[str, Any]]:
    documents, first, begin = [], 0, 0
    for member in schema.fields:
        kind = next(kind for kind, cls in _KINDS.items() if isinstance(member, cls))
        document = {"kind": kind} | {
            key: getattr(member, key) for key in member.__dataclass_fields__
        }
        if isinstance(member, CategoricalField):
            vocabulary = member.vocabulary
            if len(vocabulary) > LARGEST_INLINE:
                document["vocabulary"] = {"first": first, "size": len(vocabulary), "begin": begin}
                first += len(vocabulary)
                begin += int(vocabulary.ends[-1])
            else:
                document["vocabulary"] = list(vocabulary)
        documents.append(document)
    return documents


def _crosses_to_json(schema: Schema) -> list[dict[str, Any]]:
    return [asdict(cross) for cross in schema.crosses]


def _fields_from_json(documents: list[dict[str, Any]], folder: Path) -> list[Field]:
    fields: list[Field] = []
    for document in documents:
        member = dict(document)
        cls = _KINDS[member.pop("kind")]
        if "vocabulary" in member:
            member["vocabulary"] = _vocabulary(member["vocabulary"], folder)
        strange = member.keys() - cls.__dataclass_fields__.keys()
        if strange:
            raise SchemaError(f"{folder / SCHEMA_FILE}: unknown key '{min(strange)}' of a field")
        fields.append(msgspec.convert(member, cls))
    return fields


def _vocabulary(document: Any, folder: Path) -> Vocabulary:
    if isinstance(document, list):
        return Vocabulary.of(msgspec.convert(document, list[str]))
    first, size, begin = document["first"], document["size"], document["begin"]
    ends = _map(folder / ENDS_FILE)[first : first + size]
    text = _map(folder / TEXT_FILE)
    if first < 0 or begin < 0 or len(ends) != size or begin + int(ends[-1]) > len(text):
        raise SchemaError(f"{folder / TEXT_FILE}: not as long as {SCHEMA_FILE} says")
    return Vocabulary(text, ends, begin)


def _map(path: Path) -> NDArray[Any]:
    # An empty array has no bytes to map.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.view(np.ndarray) if isinstance(array, np.memmap) else np.asarray(array)

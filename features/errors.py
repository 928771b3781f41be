"""The errors any folder may raise, each with who acts on it.

DeepFMError
├── ConfigError    the TOML a person wrote, or an option: the person corrects it
├── DataError      a row or file of the click log: the person corrects the data
├── OutputError    a file or folder cannot be written: the person makes room or gives leave
├── SchemaError    the schema contradicts itself: stop at build or at start
├── FeatureError   a value does not fit the schema: the caller's fault
├── BundleError    missing file, wrong checksum, unknown version: refuse to serve it
└── ParityError    ONNX Runtime and PyTorch disagree: no bundle is written

`service.errors` adds those only a server knows.
"""

from __future__ import annotations


class DeepFMError(Exception):
    """Base of every error whose text is written for the person who reads it.

    Args:
        message: one sentence: what was found, what was expected, and where.
        code: a stable word for programs, e.g. `wrong_type`.
    """

    def __init__(self, message: str, code: str = "error") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class ConfigError(DeepFMError):
    """A key of the spec or an option is unknown, misplaced or out of range."""


class DataError(DeepFMError):
    """A file of the click log cannot be read, or a row of it breaks the spec's promise."""


class OutputError(DeepFMError):
    """A file or folder cannot be written; nothing half-written is left."""


class SchemaError(DeepFMError):
    """A schema contradicts itself or cannot be read."""


class FeatureError(DeepFMError):
    """A value does not fit its field, under the field's own policy.

    Args:
        message: as `DeepFMError`.
        code: as `DeepFMError`.
        row: the first such row, counted from 0 in what was encoded; None for a lone value.
    """

    def __init__(self, message: str, code: str = "error", row: int | None = None) -> None:
        super().__init__(message, code)
        self.row = row


class BundleError(DeepFMError):
    """A bundle is incomplete, altered, of another format, or not what its manifest says."""


class ParityError(DeepFMError):
    """The exported graph gives other scores than the network it came from."""

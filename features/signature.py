"""Signatures of bundles: Ed25519 over the bytes of `manifest.json`.

The manifest names every other file with its SHA-256, so one signature covers them all. It lies
beside the manifest, as its 64 bytes and nothing more, and is written with the bundle: a bundle is
never modified afterwards. `cryptography` (extra `sign`) is imported where a key is used, not
before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_FILE = "manifest.sig"
_LENGTH = 64
_END = b"-----END PUBLIC KEY-----"
_MISSING = (
    "signatures need the package cryptography, which is not installed; install deepfm-service "
    "with the extra sign"
)


class TrustedKeys:
    """Public keys, one of which must have signed a bundle.

    Args:
        file: one or more Ed25519 public keys in PEM, as `openssl pkey -pubout` writes them.

    Raises:
        ConfigError: it holds something else, or `cryptography` is not installed.
    """

    def __init__(self, file: Path) -> None:
        self._keys = _public_keys(file)

    def check(self, content: bytes, signature: Path) -> None:
        """Accept a manifest.

        Args:
            content: its bytes.
            signature: the file with its signature.

        Raises:
            BundleError: there is no signature, or it is of none of the keys.
        """
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        if signature.is_symlink() or not signature.is_file():
            raise BundleError(f"{signature}: missing, and only signed bundles are trusted")
        try:
            with signature.open("rb") as stream:
                given = stream.read(_LENGTH + 1)  # one too many is wrong too
        except OSError as error:
            raise BundleError(f"{signature}: cannot be read: {error.strerror}") from error
        for key in self._keys:
            try:
                key.verify(given, content)
            except InvalidSignature:
                continue
            return
        raise BundleError(f"{signature}: not the signature of a trusted key over this manifest")


def sign(content: bytes, key_file: Path) -> bytes:
    """Signature of some bytes: 64 bytes.

    Args:
        content: what is signed.
        key_file: an Ed25519 private key in PEM without a password.

    Raises:
        ConfigError: it holds something else, or `cryptography` is not installed.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            load_pem_private_key,
        )
    except ModuleNotFoundError as error:
        raise ConfigError(_MISSING) from error
    try:
        key = load_pem_private_key(_read(key_file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{key_file}: not a private key in PEM without a password") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{key_file}: not an Ed25519 key")
    return key.sign(content)


def _public_keys(file: Path) -> list[Ed25519PublicKey]:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            load_pem_public_key,
        )
    except ModuleNotFoundError as error:
        raise ConfigError(_MISSING) from error
    keys = []
    *blocks, rest = _read(file).split(_END)
    for block in blocks:
        try:
            key = load_pem_public_key(block + _END)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{file}: not public keys in PEM") from error
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise ConfigError(f"{file}: holds a key that is not Ed25519")
        keys.append(key)
    if not keys or rest.strip():
        raise ConfigError(f"{file}: not public keys in PEM")
    return keys


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error

"""A service that is given trusted keys serves nothing else than what they signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from features.bundle import sign_manifest
from features.errors import BundleError, ConfigError
from service.app import create_app
from service.owner import OwnVersions
from service.settings import Settings
from tests.service.linear import write_bundle

ed25519 = pytest.importorskip(
    "cryptography.hazmat.primitives.asymmetric.ed25519", reason="the extra sign is not installed"
)


def settings_of(folder: Path) -> Settings:
    """Settings with trusted keys; the private one lies beside them."""
    from cryptography.hazmat.primitives import serialization as s  # noqa: PLC0415

    key = ed25519.Ed25519PrivateKey.generate()
    private, public, admin = (folder.parent / name for name in ("key", "trusted", "admin"))
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    )
    admin.write_text("key")
    return Settings(
        bundle=folder, provider="cpu", reload_poll_s=0, trusted_keys_file=public,
        admin_keys_file=admin,
    )  # fmt: skip


def test_an_unsigned_version_is_refused_visibly_and_the_signed_one_goes_on(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "m")
    sign_manifest(write_bundle(tmp_path / "m" / "1"), tmp_path / "key")
    with TestClient(create_app(settings)) as client:
        write_bundle(tmp_path / "m" / "2", seed=2)
        answer = client.post("/admin/reload", headers={"authorization": "Bearer key"})
        assert answer.status_code == 409
        ready = client.get("/readyz").json()
        assert ready["version"] == 1
        assert ready["refused"][0]["version"] == 2
        assert "only signed bundles are trusted" in ready["refused"][0]["reason"]
        assert "deepfm_refused_versions 1.0" in client.get("/metrics").text


def test_a_start_with_nothing_signed_is_refused(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "m")
    write_bundle(tmp_path / "m" / "1")
    with pytest.raises(BundleError, match="only signed bundles are trusted"):
        OwnVersions(settings).load_first()


def test_a_key_file_that_is_none_ends_the_start(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "m")
    (tmp_path / "trusted").write_text("nonsense")
    write_bundle(tmp_path / "m" / "1")
    with pytest.raises(ConfigError, match="not public keys in PEM"):
        OwnVersions(settings).load_first()

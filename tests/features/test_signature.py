from __future__ import annotations

import builtins
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import main
from export.bundle import export_run
from features.bundle import MANIFEST_FILE, MODEL_DATA_FILE, open_bundle, sign_manifest
from features.errors import BundleError, ConfigError
from features.signature import SIGNATURE_FILE, TrustedKeys, sign
from tests.service.linear import write_bundle

pytest.importorskip("cryptography", reason="the extra sign is not installed")
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


def write_pair(folder: Path, name: str, key: Any = None) -> tuple[Path, Path]:
    """A private key and its public key in PEM."""
    key = key or ed25519.Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_pair(tmp_path, "release")


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    folder = write_bundle(tmp_path / "m" / "1")
    sign_manifest(folder, keys[0])
    return folder


def refusal(folder: Path, public: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(folder, TrustedKeys(public))
    return caught.value.message


def test_a_signed_bundle_opens_with_and_without_keys(signed: Path, keys: tuple[Path, Path]) -> None:
    assert open_bundle(signed, TrustedKeys(keys[1])).is_signed
    assert open_bundle(signed).is_signed


def test_any_of_several_trusted_keys_will_do(
    tmp_path: Path, signed: Path, keys: tuple[Path, Path]
) -> None:
    """So that a new key can be brought in before the old one goes."""
    _, other = write_pair(tmp_path, "next")
    both = tmp_path / "both.pub"
    both.write_bytes(other.read_bytes() + keys[1].read_bytes())
    assert open_bundle(signed, TrustedKeys(both)).is_signed


def test_a_missing_signature_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / SIGNATURE_FILE).unlink()
    assert "only signed bundles are trusted" in refusal(signed, keys[1])


def test_another_keys_signature_is_refused(tmp_path: Path, signed: Path) -> None:
    _, other = write_pair(tmp_path, "other")
    assert "not the signature of a trusted key" in refusal(signed, other)


@pytest.mark.parametrize("change", ["flipped", "empty", "longer", "link"])
def test_a_changed_signature_is_refused(signed: Path, keys: tuple[Path, Path], change: str) -> None:
    file = signed / SIGNATURE_FILE
    content = bytearray(file.read_bytes())
    assert len(content) == 64
    if change == "link":
        file.rename(signed.parent / "elsewhere")
        file.symlink_to(signed.parent / "elsewhere")
    else:
        changed = {"flipped": bytes([content[0] ^ 1]) + content[1:], "empty": b""}
        file.write_bytes(changed.get(change, bytes(content) + b"x"))
    assert SIGNATURE_FILE in refusal(signed, keys[1])


def test_a_changed_manifest_or_file_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / MODEL_DATA_FILE).write_bytes(b"other weights")
    assert "SHA-256" in refusal(signed, keys[1])
    manifest = signed / MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert "not the signature" in refusal(signed, keys[1])


def test_an_unlisted_file_is_refused_in_a_signed_bundle_too(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    (signed / "extra.bin").write_bytes(b"x")
    assert "holds extra.bin" in refusal(signed, keys[1])


def test_another_models_signed_version_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    moved = signed.parent.rename(signed.parent.with_name("other")) / "1"
    assert "a version of another model" in refusal(moved, keys[1])
    open_bundle(moved)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PUBLIC KEY-----\nx\n", b"key"])
def test_what_is_no_key_is_said_with_its_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{file}: not public keys in PEM"):
        TrustedKeys(file)
    with pytest.raises(ConfigError, match=f"{file}: not a private key in PEM"):
        sign(b"", file)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    private, public = write_pair(tmp_path, "ec", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ConfigError, match="not Ed25519"):
        TrustedKeys(public)
    with pytest.raises(ConfigError, match="not an Ed25519 key"):
        sign(b"", private)


def test_without_the_extra_one_sentence_names_it(
    keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *given: Any) -> Any:
        if name.startswith("cryptography"):
            raise ModuleNotFoundError(name=name)
        return real(name, *given)

    monkeypatch.setattr(builtins, "__import__", absent)
    for use in (lambda: TrustedKeys(keys[1]), lambda: sign(b"", keys[0])):
        with pytest.raises(ConfigError, match="with the extra sign"):
            use()


def test_opening_without_keys_imports_no_cryptography(signed: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from features.bundle import open_bundle;"
        "open_bundle(Path(sys.argv[1])); sys.exit('cryptography' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(signed)], check=True)


# The commands of docs/security.md; the product itself signs without this program.
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_documented_commands_make_keys_and_check_a_signature(tmp_path: Path) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    openssl("genpkey", "-algorithm", "ed25519", "-out", "release.pem")
    openssl("pkey", "-in", "release.pem", "-pubout", "-out", "release.pub")
    folder = write_bundle(tmp_path / "m" / "1")
    sign_manifest(folder, tmp_path / "release.pem")
    assert open_bundle(folder, TrustedKeys(tmp_path / "release.pub")).is_signed
    openssl(
        "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "release.pub",
        "-in", "m/1/manifest.json", "-sigfile", "m/1/manifest.sig",
    )  # fmt: skip


def test_export_signs_and_inspect_checks(
    run_folder: Path,
    tmp_path: Path,
    keys: tuple[Path, Path],
    copied_graph: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("export.bundle.write_onnx", copied_graph)
    target = tmp_path / "tiny" / "1"
    assert main(["export", str(run_folder), "-o", str(target), "--sign", str(keys[0])]) == 0
    assert main(["inspect", str(target)]) == 0
    assert "signed, not checked" in capsys.readouterr().out
    assert main(["inspect", str(target), "--trusted-keys", str(keys[1])]) == 0
    assert "signed by a trusted key" in capsys.readouterr().out
    (target / SIGNATURE_FILE).unlink()
    assert main(["inspect", str(target), "--trusted-keys", str(keys[1])]) == 2
    assert "only signed bundles are trusted" in capsys.readouterr().err


def test_score_scores_by_a_signed_bundle_alone_where_keys_are_given(
    signed: Path, tmp_path: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("price\n3\n")
    target = tmp_path / "out.parquet"
    command = ["score", str(signed), str(tmp_path / "rows.csv"), "-o", str(target)]
    assert main([*command, "--trusted-keys", str(keys[1])]) == 0
    target.unlink()
    (signed / SIGNATURE_FILE).unlink()
    assert main([*command, "--trusted-keys", str(keys[1])]) == 2
    assert "only signed bundles are trusted" in capsys.readouterr().err
    assert not target.exists()
    assert main(command) == 0


def test_a_wrong_key_ends_an_export_before_its_work(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.bundle.load_run", pytest.fail)
    with pytest.raises(ConfigError, match=r"none\.pem: cannot be read"):
        export_run(run_folder, tmp_path / "tiny" / "1", key_file=tmp_path / "none.pem")

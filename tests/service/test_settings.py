from pathlib import Path

import pytest

from features.errors import ConfigError
from service.settings import load_settings
from service.trial import Trial


@pytest.fixture(autouse=True)
def _only_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFM_BUNDLE", "bundles/ctr")


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFM_PORT", "9000")
    monkeypatch.setenv("DEEPFM_VERSION", "3")
    settings = load_settings()
    assert (settings.bundle, settings.port, settings.version) == (Path("bundles/ctr"), 9000, 3)


def test_defaults_listen_on_this_machine_only() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.max_body_bytes == 8 << 20
    assert settings.max_rows == 10_000


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPFM_PORT", "9000")
    assert load_settings(port=9001).port == 9001


def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEEPFM_WORKER", "2")
    with pytest.raises(ConfigError, match=r"DEEPFM_WORKER; .* DEEPFM_WORKERS"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEEPFM_PORT", "tcp://10.0.0.1:8000"),
        ("DEEPFM_SERVICE_HOST", "10.0.0.1"),
        ("DEEPFM_SERVICE_PORT", "8000"),
        ("DEEPFM_SERVICE_PORT_HTTP", "8000"),
        ("DEEPFM_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("DEEPFM_PORT_8000_TCP_PROTO", "tcp"),
        ("DEEPFM_PORT_8000_TCP_PORT", "8000"),
        ("DEEPFM_PORT_8000_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_kubernetes_injects_is_ignored(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert load_settings().port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "70000"), ("PORT", "x"), ("WORKERS", "0"), ("PROVIDER", "tpu"), ("VERSION", "0")],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"DEEPFM_{name}", value)
    with pytest.raises(ConfigError, match=f"DEEPFM_{name}"):
        load_settings()


def test_the_bundle_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPFM_BUNDLE")
    with pytest.raises(ConfigError, match="DEEPFM_BUNDLE"):
        load_settings()


def test_auto_starts_a_worker_on_each_usable_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.settings.usable_cores", lambda: 6)
    monkeypatch.setenv("DEEPFM_WORKERS", "auto")
    assert load_settings().workers == 6


@pytest.mark.parametrize(("workers", "threads"), [(1, 6), (2, 3), (4, 1), (8, 1)])
def test_workers_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, workers: int, threads: int
) -> None:
    monkeypatch.setattr("service.settings.usable_cores", lambda: 6)
    assert load_settings(workers=workers).threads_per_run == threads
    assert load_settings(workers=workers, threads=2).threads_per_run == 2


@pytest.mark.parametrize(
    ("variable", "given"),
    [
        ("DEEPFM_CANARY", {"canary": 3, "version": 3}),
        ("DEEPFM_SHADOW", {"canary": 3, "shadow": 4}),
        ("DEEPFM_CANARY_SHARE", {"canary": 3, "canary_share": 0}),
        ("DEEPFM_MAX_WORKER_MB", {"max_worker_mb": 500}),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    variable: str, given: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        load_settings(**given)
    assert "value error" not in caught.value.message.lower()


def test_a_request_log_in_no_folder_is_refused(tmp_path: Path) -> None:
    """Every line would be lost."""
    with pytest.raises(ConfigError, match=r"DEEPFM_REQUEST_LOG\): there is no folder .*/none$"):
        load_settings(request_log=tmp_path / "none" / "requests.jsonl")
    assert load_settings(request_log="-").request_log == Path("-")


def test_a_second_version_has_a_share_of_its_kind() -> None:
    assert load_settings(canary=3).trial == Trial(3, "canary", 0.05)
    assert load_settings(shadow=3, shadow_share=0.5).trial == Trial(3, "shadow", 0.5)
    assert load_settings().trial is None

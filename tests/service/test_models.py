from __future__ import annotations

import gc
import shutil
import time
import weakref
from pathlib import Path

import pytest

from features.errors import BundleError
from service.model import load_model
from service.models import Models
from service.settings import Settings
from tests.service.linear import write_bundle
from tests.service.processes import wait_for

MAPS = Path("/proc/self/maps")


def settings_of(folder: Path) -> Settings:
    return Settings(bundle=folder, provider="cpu")


def test_a_golden_score_that_is_not_met_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m" / "1", shift=1e-3)
    with pytest.raises(BundleError, match=r"golden request 0 scores 1\.\d+e-03 away"):
        load_model(settings_of(tmp_path / "m"), 1)


def test_a_version_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such version"):
        load_model(settings_of(tmp_path), 4)


def test_a_switch_changes_what_is_picked_in_one_step(tmp_path: Path) -> None:
    models = Models()
    first, second = (
        load_model(settings_of(write_bundle(tmp_path / "m" / str(n)).parent), n) for n in (1, 2)
    )
    models.switch(first)
    models.switch(second)
    assert models.pick(b"") is models.pick(b"version=2") is second
    assert list(models.loaded) == [2]


@pytest.mark.skipif(not MAPS.exists(), reason="maps are Linux's to tell")
def test_a_version_that_was_switched_from_is_freed_and_its_files_unmapped(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By counting references alone: nothing is collected."""
    monkeypatch.setattr("service.models.gc.collect", lambda: 0)
    # A copy, because other tests map the original.
    bundle_path = Path(shutil.copytree(bundle_path, tmp_path / "tiny" / bundle_path.name))
    models, folder = Models(), bundle_path.parent
    other = write_bundle(tmp_path / "m" / "4")
    first = load_model(settings_of(folder), int(bundle_path.name))
    held = [weakref.ref(one) for one in (first, first.scorer, first.scorer.session)]
    held.append(weakref.ref(first.scorer.bundle.table.slots))
    models.switch(first)
    second = load_model(settings_of(other.parent), 4)
    assert str(bundle_path) in MAPS.read_text()
    gc.disable()
    try:
        models.switch(second)
        del first
        wait_for(lambda: [one() for one in held] == [None] * len(held))
        assert str(bundle_path) not in MAPS.read_text()
    finally:
        gc.enable()


def test_pages_are_given_back_before_a_version_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropping it unmaps them, which holds the interpreter for as long as there are pages."""
    bundles = [write_bundle(tmp_path / "m" / str(number)) for number in (1, 2)]
    first, second = (load_model(settings_of(one.parent), int(one.name)) for one in bundles)
    models, held, found = Models(), weakref.ref(first), []

    def release(_: Path) -> None:
        time.sleep(0.05)  # by then whoever switched holds it no more
        found.append(held() is not None)

    monkeypatch.setattr("service.models.release", release)
    models.switch(first)
    del first
    models.switch(second)
    wait_for(lambda: held() is None)
    assert found == [True]


def test_what_the_messages_of_a_version_leave_is_collected_when_it_is_let_go(
    tmp_path: Path,
) -> None:
    bundles = [write_bundle(tmp_path / "m" / str(number)) for number in (1, 2)]
    first, second = (load_model(settings_of(one.parent), int(one.name)) for one in bundles)
    models = Models()
    struct = weakref.ref(first.score_decoder._messages.body)
    gc.disable()
    try:
        models.switch(first)
        del first
        models.switch(second)
        wait_for(lambda: struct() is None)
    finally:
        gc.enable()

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import BundleError
from service.errors import NotFound
from service.versions import Refusal, Standing, Versions


def folder_of(root: Path, *names: int | str) -> Path:
    for name in names:
        (root / str(name)).mkdir(exist_ok=True)
    return root


def started(root: Path, *names: int) -> Versions:
    versions = Versions(folder_of(root, *names), None)
    due = versions.due()
    assert due is not None
    versions.served(due)
    return versions


def test_a_start_takes_the_newest_version(tmp_path: Path) -> None:
    assert Versions(folder_of(tmp_path, 2, 10, "notes", "11.tmp"), None).due() == 10


def test_a_start_whose_newest_version_is_bad_takes_the_next(tmp_path: Path) -> None:
    versions = Versions(folder_of(tmp_path, 2, 10), None)
    assert versions.due() == 10
    versions.refuse(10, "bad")
    assert versions.due() == 2
    versions.served(2)
    assert versions.standing.refusals == (Refusal(10, "bad"),)


def test_a_start_without_a_good_version_says_what_is_wrong_with_the_newest(tmp_path: Path) -> None:
    versions = Versions(folder_of(tmp_path, 2, 10), None)
    for version, reason in ((10, "ten is bad"), (2, "two is bad")):
        assert versions.due() == version
        versions.refuse(version, reason)
    assert versions.due() is None
    assert versions.nothing_served().message == "ten is bad"


def test_a_folder_without_versions_is_refused(tmp_path: Path) -> None:
    versions = Versions(tmp_path, None)
    assert versions.due() is None
    assert "holds no version" in versions.nothing_served().message


def test_a_version_in_place_of_its_folder_is_told_so(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1) / "1"
    (folder / "manifest.json").touch()
    told = Versions(folder, None).nothing_served().message
    assert told.endswith(f"is a version, expected the folder that holds it, {folder.parent}")


def test_a_start_whose_folder_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        Versions(tmp_path / "none", None).due()


def test_only_what_is_newer_is_due(tmp_path: Path) -> None:
    versions = started(tmp_path, 3)
    folder_of(tmp_path, 1, 2)
    assert versions.due() is None
    folder_of(tmp_path, 4, 5)
    assert versions.due() == 5


def test_after_a_rollback_only_what_is_newer_than_all_before_is_due(tmp_path: Path) -> None:
    versions = started(tmp_path, 3, 4, 5)
    versions.served(versions.asked(3))
    assert versions.due() is None
    folder_of(tmp_path, 6)
    assert versions.due() == 6


def test_who_asks_for_no_version_gets_the_newest_also_after_a_rollback(tmp_path: Path) -> None:
    versions = started(tmp_path, 3, 5)
    versions.served(versions.asked(3))
    assert versions.asked(None) == 5


def test_a_pinned_version_is_the_only_one_that_is_due(tmp_path: Path) -> None:
    versions = Versions(folder_of(tmp_path, 2, 5), 2)
    assert versions.due() == 2
    versions.served(2)
    folder_of(tmp_path, 6)
    assert versions.due() is None
    assert versions.asked(None) == 2
    assert versions.asked(6) == 6


def test_a_refused_version_is_due_again_only_when_its_files_change(tmp_path: Path) -> None:
    versions = started(tmp_path, 3)
    folder_of(tmp_path, 4)
    assert versions.due() == 4
    versions.refuse(4, "half-written")
    assert versions.due() is None
    (tmp_path / "4" / "manifest.json").write_text("{}")
    assert versions.due() == 4
    versions.refuse(4, "half-written")
    assert versions.due() is None


def test_what_changes_while_it_is_loaded_is_due_again(tmp_path: Path) -> None:
    versions = started(tmp_path, 3)
    folder_of(tmp_path, 4)
    assert versions.due() == 4
    (tmp_path / "4" / "manifest.json").write_text("{}")
    versions.refuse(4, "half-written")
    assert versions.due() == 4


def test_below_a_refused_version_the_next_newer_one_is_due(tmp_path: Path) -> None:
    versions = started(tmp_path, 3)
    folder_of(tmp_path, 4, 5)
    assert versions.due() == 5
    versions.refuse(5, "bad")
    assert versions.due() == 4


def test_a_refused_version_may_be_asked_for_again(tmp_path: Path) -> None:
    versions = started(tmp_path, 3)
    folder_of(tmp_path, 4)
    versions.refuse(4, "bad")
    assert versions.asked(None) == 4


@pytest.mark.parametrize("wanted", [4, None])
def test_what_does_not_lie_on_disk_is_not_found(tmp_path: Path, wanted: int | None) -> None:
    with pytest.raises(NotFound):
        Versions(tmp_path, None).asked(wanted)


def test_a_folder_that_cannot_be_read_for_a_while_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "ctr"
    folder.mkdir()
    versions = started(folder, 3)
    folder.rename(tmp_path / "away")
    assert versions.due() is None
    folder_of(tmp_path / "away", 4).rename(folder)
    assert versions.due() == 4


def test_whoever_asks_while_the_disk_fails_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    versions = started(folder_of(tmp_path, 3), 4)
    monkeypatch.setattr(Path, "is_dir", fail)
    for wanted in (3, 4, None):
        with pytest.raises(NotFound):
            versions.asked(wanted)


def test_what_is_told_names_no_path_and_counts_outcomes(tmp_path: Path) -> None:
    versions = started(tmp_path, 3)
    folder_of(tmp_path, 4, 5)
    versions.refuse(5, f"{tmp_path}/5/model.onnx: missing")
    versions.served(4)
    assert versions.standing == Standing((Refusal(5, "5/model.onnx: missing"),), 1, 1)


def test_a_refused_version_that_is_deleted_is_told_of_no_longer(tmp_path: Path) -> None:
    versions = started(tmp_path, 3)
    folder_of(tmp_path, 4)
    versions.due()
    versions.refuse(4, "bad")
    (tmp_path / "4").rmdir()
    versions.due()
    assert versions.standing.refusals == ()

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from features.atomic import new_file, new_folder
from features.errors import OutputError


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def fail_after_writing(file: Path) -> None:
    file.write_text("half")
    raise KeyError


def write_at(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("theirs")


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    with new_file(target) as file:
        file.write_text("whole")
        assert not target.exists()
        assert file.parent == target.parent
    assert target.read_text() == "whole"
    assert names(target.parent) == {"a.txt"}


def test_a_file_is_readable_by_others(tmp_path: Path) -> None:
    with new_file(tmp_path / "a.txt") as file:
        file.write_text("whole")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with new_file(tmp_path / "a.txt") as file:
        file.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyError), new_file(tmp_path / "a.txt") as file:
        fail_after_writing(file)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "ctr" / "1"
    with new_folder(target) as folder:
        (folder / "a.txt").write_text("whole")
        assert not target.exists()
        assert folder.parent == target.parent
    assert (target / "a.txt").read_text() == "whole"
    assert names(target.parent) == {"1"}


def test_a_folder_and_its_files_are_readable_by_others(tmp_path: Path) -> None:
    with new_folder(tmp_path / "1") as folder:
        (folder / "a.txt").write_text("whole")
        (folder / "a.txt").chmod(0o600)
    assert stat.S_IMODE((tmp_path / "1").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "1" / "a.txt").stat().st_mode) == 0o644


def test_a_folder_in_the_making_is_no_version(tmp_path: Path) -> None:
    with new_folder(tmp_path / "1") as folder:
        assert folder.name.startswith(".1.")


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "a.txt").write_text("old")
    with pytest.raises(OutputError, match="1 exists already"), new_folder(tmp_path / "1"):
        pytest.fail("the block must not run")
    assert (tmp_path / "1" / "a.txt").read_text() == "old"


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    theirs = tmp_path / "1" / "a.txt"
    with pytest.raises(OutputError, match="cannot be written"), new_folder(theirs.parent):
        write_at(theirs)
    assert theirs.read_text() == "theirs"
    assert names(tmp_path) == {"1"}


def test_a_failed_block_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "1") as folder:
        fail_after_writing(folder / "a.txt")
    assert names(tmp_path) == set()


def test_where_nothing_can_be_written_the_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(OutputError, match=r"file/a\.txt: cannot be written: "),
        new_file(tmp_path / "file" / "a.txt"),
    ):
        pytest.fail("the block must not run")
    with (
        pytest.raises(OutputError, match="file/1: cannot be written: "),
        new_folder(tmp_path / "file" / "1"),
    ):
        pytest.fail("the block must not run")


def test_a_full_disk_inside_the_block_names_the_target(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"a\.txt: cannot be written: No space left"),
        new_file(tmp_path / "a.txt"),
    ):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == set()

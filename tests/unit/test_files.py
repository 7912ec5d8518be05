"""Durable files: replaced atomically, in folders that are created durably. Power cuts are in tests/chaos."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from nomnom.files import make_folder, replace_file


def test_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old and longer")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_failed_replacement_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("old")
    (tmp_path / "state.json.new").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(path, b"new")
    assert path.read_text() == "old"


def test_left_over_part_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    (tmp_path / "state.json.new").write_text("interrupted, and longer than the content")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_folders_are_created_with_the_mode_of_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    make_folder(folder, mode=0o700)
    make_folder(folder, mode=0o755)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

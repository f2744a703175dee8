"""Directories of running demos are left alone, those of dead ones are found."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.demo.claims import claimed_work_dir, leftovers, make_claimed, own_name

if TYPE_CHECKING:
    from pathlib import Path


def test_a_directory_is_a_leftover_once_nobody_holds_it(tmp_path: Path) -> None:
    """A claim is what tells a running demo's directory from a dead one's."""
    path = tmp_path / own_name(4711)
    claim = make_claimed(path)
    assert list(leftovers(tmp_path)) == []
    os.close(claim)
    assert list(leftovers(tmp_path)) == [path]


def test_only_real_directories_with_our_name_are_leftovers(tmp_path: Path) -> None:
    """What others put beside ours is never touched, a link to elsewhere under our name included."""
    (tmp_path / "someone-elses").mkdir()
    (tmp_path / "otel-k8s-cgroup-demo-backup").mkdir()
    (tmp_path / own_name(1)).symlink_to(tmp_path / "someone-elses")
    (tmp_path / own_name(2)).write_text("a file")
    assert list(leftovers(tmp_path)) == []


def test_no_leftovers_where_the_directory_cannot_be_read(tmp_path: Path) -> None:
    """A parent that is not there is no reason to fail."""
    assert list(leftovers(tmp_path / "absent")) == []


def test_a_directory_that_is_there_already_cannot_be_claimed(tmp_path: Path) -> None:
    """Two demos never share a directory."""
    os.close(make_claimed(tmp_path / own_name(7)))
    with pytest.raises(FileExistsError):
        make_claimed(tmp_path / own_name(7))


def test_work_dir_is_private_and_removed_with_the_leftovers_of_others(tmp_path: Path) -> None:
    """It holds the token: nobody else may read it, and nothing of it, nor of a killed demo's, stays."""
    leftover = tmp_path / own_name(4711)
    leftover.mkdir()
    (leftover / "token").write_text("old")
    with claimed_work_dir(tmp_path) as path:
        assert path.stat().st_mode & 0o077 == 0
        assert list(tmp_path.iterdir()) == [path]
        (path / "token").write_text("new")
    assert list(tmp_path.iterdir()) == []

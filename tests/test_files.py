"""Files appear whole or not at all, in the place that the user named."""

import os
import stat
from pathlib import Path

import pytest

from d3rlpy.files import replacing


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "model.pt"
    target.write_text("old")

    def write_and_fail():
        with replacing(target) as path:
            Path(path).write_text("half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["model.pt"]


def test_a_finished_file_replaces_the_old_one_with_ordinary_permissions(tmp_path):
    target, ordinary = tmp_path / "model.pt", tmp_path / "ordinary"
    target.write_text("old")
    ordinary.write_text("")
    with replacing(target) as path:
        Path(path).write_text("new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "real.pt", tmp_path / "link.pt"
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as path:
        Path(path).write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path / "far") == ["real.pt"]


def refused(fname):
    with replacing(fname) as path:
        Path(path).write_text("new")


def test_a_place_that_cannot_be_written_is_named_as_the_user_did(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*nowhere/a\.pt: there is no folder .*nowhere$"):
        refused(tmp_path / "nowhere" / "a.pt")
    with pytest.raises(IsADirectoryError, match=f"cannot write {tmp_path}: it is a folder"):
        refused(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"cannot write .*pipe: it is not an ordinary file"):
        refused(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match=r"cannot write .*loop: it is not an ordinary file"):
        refused(tmp_path / "loop")
    assert sorted(os.listdir(tmp_path)) == ["loop", "pipe"]

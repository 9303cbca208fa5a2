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

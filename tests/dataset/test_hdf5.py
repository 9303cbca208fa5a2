"""Own files: round trips, damage, and that a failing dump leaves the old file alone."""

import os
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from d3rlpy.dataset import MDPDataset, gather, hdf5, rows_of

from .generated import dataset_of, flags, logs


@settings(deadline=None, max_examples=40)
@given(log=logs(), compression=st.sampled_from([None, "gzip", "lzf"]), extra=st.integers(0, 1))
def test_a_dumped_data_set_comes_back_the_same(tmp_path_factory, log, compression, extra):
    assume(log.transitions())
    dataset = dataset_of(log)
    if dataset.discrete_action and extra:
        dataset = dataset_of(log, action_size=dataset.get_action_size() + 1)
    path = tmp_path_factory.mktemp("file") / "data.h5"
    dataset.dump(path, compression=compression)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = MDPDataset.load(str(path))
    assert loaded.get_action_size() == dataset.get_action_size()
    assert loaded.discrete_action == dataset.discrete_action
    assert loaded.report.transitions == dataset.report.transitions
    assert loaded.report.cut_links == dataset.report.cut_links
    assert len(loaded) == len(dataset)
    for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(dataset, name))
        assert getattr(loaded, name).dtype == getattr(dataset, name).dtype
    mine, theirs = gather(*rows_of(dataset), n_steps=3), gather(*rows_of(loaded), n_steps=3)
    for name in ("rewards", "next_observations", "discounts"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


def test_columns_are_kept(tmp_path):
    dataset = MDPDataset(
        np.zeros((3, 1)), [0, 1, 0], np.ones(3), flags(3, 2),
        columns={"action_mask": np.ones((3, 2)), "behavior_log_prob": [-1, -2, -3]},
    )  # fmt: skip
    dataset.dump(tmp_path / "a.h5")
    loaded = MDPDataset.load(tmp_path / "a.h5")
    assert loaded.columns["behavior_log_prob"].tolist() == [-1, -2, -3]
    assert loaded.columns["action_mask"].dtype == np.bool_


def test_compression_makes_the_file_smaller(tmp_path):
    dataset = MDPDataset(np.zeros((300, 1, 30, 30), np.uint8), np.zeros(300, int), np.ones(300), flags(300, 299))
    sizes = {}
    for kind in (None, "gzip", "lzf"):
        dataset.dump(tmp_path / "a.h5", compression=kind)
        sizes[kind] = (tmp_path / "a.h5").stat().st_size
    assert sizes["gzip"] < sizes[None] / 10
    assert sizes["lzf"] < sizes[None] / 10
    with pytest.raises(ValueError, match=r"compression must be None or one of .*, got 'zip'"):
        dataset.dump(tmp_path / "b.h5", compression="zip")
    assert os.listdir(tmp_path) == ["a.h5"]


def test_a_failing_dump_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    dataset = MDPDataset(np.zeros((3, 1)), [0, 1, 0], np.ones(3), flags(3, 2))
    dataset.dump(tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    for name in ("a.h5", "new.h5"):
        with pytest.raises(OSError, match="disk full"):
            dataset.dump(tmp_path / name)
    assert os.listdir(tmp_path) == ["a.h5"]
    assert (tmp_path / "a.h5").read_bytes() == before


def test_a_dump_into_nowhere_names_the_folder(tmp_path):
    dataset = MDPDataset(np.zeros((3, 1)), [0, 1, 0], np.ones(3), flags(3, 2))
    with pytest.raises(FileNotFoundError, match=r"cannot write .*a\.h5: there is no folder .*nowhere"):
        dataset.dump(tmp_path / "nowhere" / "a.h5")
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        dataset.dump(tmp_path)


def test_a_file_that_is_no_hdf5_or_truncated_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.h5"):
        MDPDataset.load(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not hdf5")
    (tmp_path / "empty.h5").write_bytes(b"")
    dataset = MDPDataset(np.zeros((300, 5)), np.arange(300) % 2, np.ones(300), flags(300, 299))
    dataset.dump(tmp_path / "whole.h5")
    whole = (tmp_path / "whole.h5").read_bytes()
    for k, share in enumerate((0.1, 0.5, 0.9, 0.99)):
        (tmp_path / f"cut{k}.h5").write_bytes(whole[: int(len(whole) * share)])
    for name in ("text", "empty", "cut0", "cut1", "cut2", "cut3"):
        with pytest.raises(ValueError, match=r"\.h5 is .*truncated, damaged or (no HDF5 file|was changed)"):
            MDPDataset.load(tmp_path / f"{name}.h5")


def small():
    return MDPDataset(
        np.arange(12, dtype=np.float32).reshape(6, 2), [0, 1, 0, 1, 1, 0], np.arange(6) / 2, flags(6, 2),
        timeouts=flags(6, 5), next_observations=np.arange(2, 14, dtype=np.float32).reshape(6, 2),
        columns={"behavior_log_prob": -np.arange(6) / 4},
    )  # fmt: skip


CONTENT = ("observations", "actions", "rewards", "terminals", "timeouts")


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_changed_byte_never_gives_other_data(tmp_path, compression):
    path = tmp_path / "a.h5"
    small().dump(path, compression=compression)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    for position in [*range(0, 48), *generator.integers(48, len(whole), 300)]:
        spoiled = bytearray(whole)
        spoiled[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(spoiled)
        try:
            loaded = MDPDataset.load(path)
        except ValueError as error:
            assert "truncated, damaged" in str(error)  # noqa: PT017
        else:  # between the head and the HDF5 part lies nothing that is read
            assert position < 512
            for name in CONTENT:
                np.testing.assert_array_equal(getattr(loaded, name), getattr(small(), name))
            assert not any(whole[position:512])


def test_a_changed_or_cut_file_says_that_its_checksum_does_not_fit(tmp_path):
    path = tmp_path / "a.h5"
    small().dump(path)
    with h5py.File(path, "r+") as file:
        file["rewards"][0] = 7.0
    with pytest.raises(ValueError, match=r"a\.h5 is truncated, damaged or was changed .*: its checksum does not fit"):
        MDPDataset.load(path)
    small().dump(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="its checksum does not fit"):
        MDPDataset.load(path)


FULL_DISK = """
import resource, sys
import numpy as np
from d3rlpy.dataset import MDPDataset
rows = np.random.default_rng(0).normal(size=(20_000, 5))
dataset = MDPDataset(rows, rows[:, :2], rows[:, 0], np.arange(20_000) % 10 == 9)
for limit in (100, 5000, 300_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for compression in (None, "gzip"):
        try:
            dataset.dump(sys.argv[1], compression=compression)
        except OSError:
            print("refused")
"""


def test_a_full_disk_is_an_error_that_leaves_the_process_alive_and_no_file(tmp_path):
    (tmp_path / "a.h5").write_text("old")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.h5")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "refused\n" * 6), result.stderr
    assert os.listdir(tmp_path) == ["a.h5"]
    assert (tmp_path / "a.h5").read_text() == "old"


def damage(change, tmp_path):
    """A file whose content was changed by somebody who made the checksum fit again."""
    following = np.array([[1.0], [2.0], [9.0]])
    dataset = MDPDataset(np.zeros((3, 1)), [0, 1, 0], np.ones(3), flags(3, 2), next_observations=following)
    dataset.dump(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        change(file)
    content = (tmp_path / "a.h5").read_bytes()[hdf5.HEAD_SIZE :]
    (tmp_path / "a.h5").write_bytes(hdf5.make_head(zlib.crc32(content)) + content)
    return tmp_path / "a.h5"


@pytest.mark.parametrize("rows", [[0, 1, 3], [1, 0, 2], [-1, 0, 1], [0, 0, 1]])
def test_stored_successors_that_do_not_fit_are_refused(tmp_path, rows):
    path = damage(lambda file: file["successors/rows"].write_direct(np.array(rows)), tmp_path)
    with pytest.raises(ValueError, match="the stored successors do not fit the rows"):
        MDPDataset.load(path)


def replaced(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


MADE_WRONG = {
    "nan successor": (
        lambda file: file["successors/observations"].write_direct(np.full((3, 1), np.nan, np.float32)),
        "successors has NaN",
    ),
    "newer version": (
        lambda file: file.attrs.modify("version", 99),
        "version 99 of the format; this release reads version 2",
    ),
    "several versions": (lambda file: file.attrs.create("version", [2, 2]), r"version \[2 2\] of the format"),
    "no successors": (lambda file: file.__delitem__("successors/rows"), "not a readable data set"),
    "columns is no group": (lambda file: file.create_dataset("columns", data=1), "not a readable data set"),
    "several action sizes": (lambda file: file.attrs.create("action_size", [2, 2]), "not a readable data set"),
    "huge array": (
        lambda file: (file.__delitem__("rewards"), file.create_dataset("rewards", (10**15,), "f4", chunks=(100,))),
        "not a readable data set",
    ),
    "scalar": (replaced("observations", 1.0), "a.h5"),
    "text": (replaced("rewards", "text"), "a.h5: rewards must hold numbers"),
}


@pytest.mark.parametrize("case", MADE_WRONG)
def test_wrong_content_with_a_right_checksum_is_an_error_that_names_the_file(tmp_path, case):
    change, message = MADE_WRONG[case]
    with pytest.raises(ValueError, match=message) as error:
        MDPDataset.load(damage(change, tmp_path))
    assert "a.h5" in str(error.value)


def test_an_own_file_is_not_delayed(tmp_path):
    path = damage(lambda file: None, tmp_path)
    with pytest.raises(ValueError, match=r"written by MDPDataset.dump and is not delayed"):
        MDPDataset.load(path, alignment="delayed")
    assert MDPDataset.load(path, alignment="gymnasium").report.transitions == 3


def test_a_file_without_its_head_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    small().dump(path)
    path.write_bytes(path.read_bytes()[hdf5.HEAD_SIZE :])
    with pytest.raises(ValueError, match="without its first 512 bytes: copy the whole file again"):
        MDPDataset.load(path)


def test_a_file_of_this_format_still_loads_with_what_it_held():
    loaded, made = MDPDataset.load(Path(__file__).parents[1] / "golden" / "dataset.h5"), small()
    for name in CONTENT:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(made, name))
        assert getattr(loaded, name).dtype == getattr(made, name).dtype
    assert loaded.columns.keys() == {"behavior_log_prob"}
    assert loaded.columns["behavior_log_prob"].tolist() == [0, -0.25, -0.5, -0.75, -1, -1.25]
    assert [t.next_observation.tolist() for t in loaded[1]] == [[8, 9], [10, 11], [12, 13]]
    assert loaded.report == made.report

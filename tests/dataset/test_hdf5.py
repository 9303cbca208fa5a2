"""Files: round trips, foreign layouts, damaged files, and that a failing dump leaves the old file alone."""

import os
import warnings

import h5py
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from d3rlpy.dataset import MDPDataset, gather, rows_of

from .generated import dataset_of, flags, logs

FOREIGN = {
    "observations": np.arange(5, dtype=np.float64)[:, None],
    "actions": np.array([[0.5], [-0.5], [0.25], [0.75], [-0.25]]),
    "rewards": np.array([0.0, 10, 20, 0, 40]),
    "terminals": flags(5, 2).astype(np.float32),
}


def written(path, attributes=(), **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs.update(dict(attributes))
    return path


def tuples(dataset):
    return [(t.observation.item(), t.reward, t.next_observation.item(), t.terminal) for e in dataset for t in e]


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
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        dataset.dump(tmp_path / "nowhere" / "a.h5")
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        dataset.dump(tmp_path)


def test_a_file_with_timeouts_is_read_like_d4rl(tmp_path):
    path = written(tmp_path / "a.h5", **FOREIGN, timeouts=flags(5, 4))
    assert tuples(MDPDataset.load(path)) == [(0, 0, 1, 0), (1, 10, 2, 0), (2, 20, 0, 1), (3, 0, 4, 0)]
    following = np.array([1, 2, 77, 4, 88.0])[:, None]
    path = written(tmp_path / "b.h5", **FOREIGN, timeouts=flags(5, 4), next_observations=following)
    assert tuples(MDPDataset.load(path))[-1] == (4, 40, 88, 0)


def test_a_file_of_the_original_1_1_is_read_in_its_alignment(tmp_path):
    ids = FOREIGN | {"actions": np.array([0, 1, 2, 0, 1], np.int32)}
    path = written(
        tmp_path / "a.h5",
        **ids,
        episode_terminals=flags(5, 2, 4).astype(np.float32),
        discrete_action=True,
        version="1.0",
    )
    dataset = MDPDataset.load(path)
    assert dataset.discrete_action
    assert tuples(dataset) == [(0, 0, 1, 0), (1, 10, 2, 0), (2, 20, 0, 1), (3, 0, 4, 0)]


def test_a_file_of_the_original_before_1_1_is_converted_with_a_warning(tmp_path):
    path = written(tmp_path / "a.h5", **FOREIGN, episode_terminals=flags(5, 2, 4), discrete_action=False)
    with pytest.warns(UserWarning, match='delayed by one row, and converted; pass alignment="gymnasium"') as caught:
        dataset = MDPDataset.load(path)
    assert caught[0].filename == __file__
    assert tuples(dataset) == [(0, 10, 1, 0), (1, 20, 2, 1), (3, 40, 4, 0)]
    assert tuples(MDPDataset.load(path, alignment="delayed")) == tuples(dataset)
    assert len(tuples(MDPDataset.load(path, alignment="gymnasium"))) == 4


def test_a_file_of_the_original_2_is_read_episode_by_episode(tmp_path):
    episodes = [([0.0, 1.0], [0, 1], [5.0, 6.0], True), ([2.0, 3.0], [1, 1], [7.0, 8.0], False)]
    arrays = {"version": "2.1"}
    for i, (observations, actions, rewards, terminated) in enumerate(episodes):
        arrays[f"observations_{i}"] = np.array(observations)[:, None]
        arrays[f"actions_{i}"] = np.array(actions)[:, None]
        arrays[f"rewards_{i}"] = np.array(rewards)[:, None]
        arrays[f"terminated_{i}"] = terminated
    path = written(tmp_path / "a.h5", **arrays)
    dataset = MDPDataset.load(path)
    assert dataset.discrete_action
    assert tuples(dataset) == [(0, 5, 1, 0), (1, 6, 0, 1), (2, 7, 3, 0)]
    with pytest.raises(ValueError, match="not delayed; leave out alignment"):
        MDPDataset.load(path, alignment="delayed")
    path = written(tmp_path / "b.h5", observations_0_0=np.zeros((2, 1)))
    with pytest.raises(ValueError, match="tuples of arrays"):
        MDPDataset.load(path)


def test_a_file_that_does_not_say_its_alignment_asks_for_it(tmp_path):
    path = written(tmp_path / "a.h5", **FOREIGN)
    with pytest.raises(ValueError, match=r'a\.h5: the file does not say .* pass alignment="gymnasium" if'):
        MDPDataset.load(path)
    with pytest.warns(UserWarning, match="no end flag in the last 2"):
        assert MDPDataset.load(path, alignment="gymnasium").report.transitions == 4
    with pytest.raises(ValueError, match=r"alignment must be one of \('gymnasium', 'delayed'\), got 'd4rl'"):
        MDPDataset.load(path, alignment="d4rl")


def test_bad_contents_name_the_file_and_the_array(tmp_path):
    path = written(tmp_path / "a.h5", **(FOREIGN | {"rewards": np.full(5, np.nan)}), timeouts=flags(5, 4))
    with pytest.raises(ValueError, match=r"a\.h5: rewards has NaN.* in row 0"):
        MDPDataset.load(path)
    path = written(tmp_path / "b.h5", observations=np.zeros((2, 1)), other=1)
    with pytest.raises(ValueError, match=r"actions, rewards, terminals missing; it holds \['observations', 'other'\]"):
        MDPDataset.load(path)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_group("observations")
        file["actions"] = file["rewards"] = file["terminals"] = file["timeouts"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"c\.h5 is not a readable data set"):
        MDPDataset.load(tmp_path / "c.h5")


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
        with pytest.raises(ValueError, match="truncated, damaged or no HDF5 file"):
            MDPDataset.load(tmp_path / f"{name}.h5")


def damage(change, tmp_path):
    following = np.array([[1.0], [2.0], [9.0]])
    dataset = MDPDataset(np.zeros((3, 1)), [0, 1, 0], np.ones(3), flags(3, 2), next_observations=following)
    dataset.dump(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        change(file)
    return tmp_path / "a.h5"


@pytest.mark.parametrize("rows", [[0, 1, 3], [1, 0, 2], [-1, 0, 1], [0, 0, 1]])
def test_stored_successors_that_do_not_fit_are_refused(tmp_path, rows):
    path = damage(lambda file: file["successors/rows"].write_direct(np.array(rows)), tmp_path)
    with pytest.raises(ValueError, match="the stored successors do not fit the rows"):
        MDPDataset.load(path)


def test_damage_in_our_own_files_is_found(tmp_path):
    path = damage(
        lambda file: file["successors/observations"].write_direct(np.full((3, 1), np.nan, np.float32)),
        tmp_path,
    )
    with pytest.raises(ValueError, match="successors has NaN"):
        MDPDataset.load(path)
    path = damage(lambda file: file.attrs.modify("version", 99), tmp_path)
    with pytest.raises(ValueError, match="version 99 of the format; this release reads version 1"):
        MDPDataset.load(path)
    path = damage(lambda file: file.__delitem__("successors/rows"), tmp_path)
    with pytest.raises(ValueError, match="not a readable data set"):
        MDPDataset.load(path)
    path = damage(lambda file: None, tmp_path)
    with pytest.raises(ValueError, match=r"written by MDPDataset.dump and is not delayed"):
        MDPDataset.load(path, alignment="delayed")
    assert MDPDataset.load(path, alignment="gymnasium").report.transitions == 3

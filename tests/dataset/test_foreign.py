"""Files that others wrote: D4RL, the original d3rlpy, and what is neither."""

import warnings

import h5py
import numpy as np
import pytest

from d3rlpy.dataset import MDPDataset

from .generated import flags

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


def test_arrays_that_are_not_read_are_named(tmp_path):
    further = {"timeouts": flags(5, 4), "action_mask": np.ones((5, 2)), "next_actions": np.zeros(5), "seed": 3}
    path = written(tmp_path / "a.h5", **FOREIGN, **further, **{"infos/qpos": np.zeros(5)})
    message = r"a\.h5: action_mask, next_actions are left out; .* columns="
    with pytest.warns(UserWarning, match=message) as caught:
        MDPDataset.load(path)
    assert caught[0].filename == __file__
    path = written(tmp_path / "b.h5", **FOREIGN, timeouts=flags(5, 4), next_observations=np.ones((5, 1)))
    with pytest.warns(UserWarning, match=r"b\.h5: next_observations is left out"):
        MDPDataset.load(path, alignment="delayed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MDPDataset.load(path)


def of_version_2(path, *numbers, **further):
    arrays = dict(further)
    for i in numbers:
        arrays |= {f"observations_{i}": np.full((2, 1), i), f"actions_{i}": np.zeros((2, 1), int)}
        arrays |= {f"rewards_{i}": np.ones((2, 1)), f"terminated_{i}": True}
    return written(path, **arrays)


def test_a_missing_episode_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"a\.h5: observations_1 is missing, though there is observations_3"):
        MDPDataset.load(of_version_2(tmp_path / "a.h5", 0, 2, 3))
    with pytest.raises(ValueError, match=r"b\.h5: observations_0 is missing, though there is observations_1"):
        MDPDataset.load(of_version_2(tmp_path / "b.h5", 1))
    path = of_version_2(tmp_path / "c.h5", 0, 1, 2)
    with h5py.File(path, "r+") as file:
        del file["actions_1"]
    with pytest.raises(ValueError, match=r"c\.h5: actions_1 is missing, though there is observations_2"):
        MDPDataset.load(path)


def test_many_episodes_of_version_2_come_in_order(tmp_path):
    dataset = MDPDataset.load(of_version_2(tmp_path / "a.h5", *range(12)))
    assert dataset.observations.reshape(-1).tolist() == np.repeat(np.arange(12), 2).tolist()
    path = of_version_2(tmp_path / "b.h5", 0, action_mask_0=np.ones((2, 1)), total_size=2)
    with pytest.warns(UserWarning, match=r"b\.h5: action_mask_0 is left out"):
        MDPDataset.load(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"timeouts": "text"}, "timeouts must hold numbers"),
        ({"timeouts": flags(5, 4), "discrete_action": [0, 1]}, "discrete_action must be one flag, got"),
        ({"version": "1.0", "actions": 3.0}, "actions must have one row for each time step"),
    ],
)
def test_strange_content_is_an_error_that_names_the_file(tmp_path, arrays, message):
    path = written(tmp_path / "a.h5", **(FOREIGN | arrays))
    with pytest.raises(ValueError, match=rf"a\.h5: {message}"):
        MDPDataset.load(path)


def test_strange_attributes_do_not_matter(tmp_path):
    path = written(tmp_path / "a.h5", {"format": [1, 2], "version": "x"}, **FOREIGN, timeouts=flags(5, 4))
    assert MDPDataset.load(path).report.transitions == 4


def test_a_foreign_file_may_begin_with_a_block_of_its_own(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        for name, array in (FOREIGN | {"timeouts": flags(5, 4)}).items():
            file[name] = array
    assert MDPDataset.load(tmp_path / "a.mat").report.transitions == 4

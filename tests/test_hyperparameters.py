import dataclasses

import pytest
from sklearn.base import BaseEstimator, clone

from d3rlpy.algos import BC, CQL, DQN, TD3, TD3PlusBC
from d3rlpy.hyperparameters import (
    ALGORITHMS,
    check_hyperparameters,
    describe,
    fields_of,
    hp,
    hyperparameters,
    snake_case,
)
from d3rlpy.models.encoders import PixelEncoderFactory, VectorEncoderFactory
from d3rlpy.models.optimizers import AdamFactory
from d3rlpy.models.q_functions import QRQFunctionFactory


@hyperparameters
class Parent(BaseEstimator):
    """A parent."""

    rate: float = hp(0.5, "share of something", low=0, high=1)
    kind: str = hp("a", "which one", options=("a", "b"))


@hyperparameters
class Child(Parent):
    """A child with another default."""

    rate: float = hp(0.25)
    size: int = hp(3, "number of things", low=1, fixed=True)


def test_names_are_those_of_the_papers_in_snake_case():
    names = ("TD3PlusBC", "DiscreteCQL", "DoubleDQN", "PLASWithPerturbation", "DQN", "IQL")
    assert [snake_case(n) for n in names] == [
        "td3_plus_bc", "discrete_cql", "double_dqn", "plas_with_perturbation", "dqn", "iql",
    ]  # fmt: skip


def test_a_child_that_changes_a_default_keeps_meaning_and_bounds():
    assert Child().rate == 0.25
    assert dict(fields_of(Child)["rate"].metadata) == dict(fields_of(Parent)["rate"].metadata)
    assert Parent().rate == 0.5


def test_documentation_comes_from_the_declaration():
    assert "size : int, default 3\n    number of things (at least 1, fixed once the networks exist)." in describe(Child)
    assert describe(Child) in Child.__doc__


def test_every_hyperparameter_of_every_algorithm_says_what_it_means():
    silent = [
        (name, field)
        for name, cls in ALGORITHMS.items()
        for field, f in fields_of(cls).items()
        if not f.metadata.get("help")
    ]
    assert silent == []


def test_a_misspelt_name_is_an_error_that_knows_the_right_one():
    with pytest.raises(TypeError, match=r"DQN has no parameter 'learning_rat'. Did you mean 'learning_rate'\?"):
        DQN(learning_rat=0.1)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gamma": 1.5}, r"DQN: gamma=1.5 is out of bounds, it must lie in \[0, 1\]"),
        ({"n_steps": 0}, r"DQN: n_steps=0 is out of bounds"),
        ({"n_steps": -2}, r"DQN: n_steps=-2 is out of bounds"),
        ({"batch_size": 2.5}, r"DQN: batch_size must be a whole number, got 2.5"),
        ({"gamma": "high"}, r"DQN: gamma must be a number, got 'high'"),
        ({"gamma": float("nan")}, r"DQN: gamma=nan is out of bounds"),
        ({"n_critics": True}, r"DQN: n_critics must be a whole number, got True"),
        ({"random_state": "x"}, r"DQN: random_state='x' must be a whole number from 0, or None"),
    ],
)
def test_values_are_checked_before_training(params, message):
    with pytest.raises(ValueError, match=message):
        DQN(**params).create_impl((2,), 2)


def test_an_unknown_option_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"BC: policy_type='soft' is unknown, it must be one of"):
        check_hyperparameters(BC(policy_type="soft"))


def test_whole_floats_count_as_whole_numbers():
    check_hyperparameters(DQN(target_update_interval=8000.0))  # as the 2020 documentation writes it


@pytest.mark.parametrize(
    ("cls", "old", "new"),
    [
        (DQN, {"q_func_type": "qr"}, {"q_func_factory": "qr"}),
        (DQN, {"eps": 0.1}, {"optim_factory": {"type": "adam", "params": {"eps": 0.1}}}),
        (
            DQN,
            {"encoder_params": {"hidden_units": [8]}, "use_batch_norm": True},
            {"encoder_factory": {"type": "vector", "params": {"hidden_units": [8], "use_batch_norm": True}}},
        ),
        (
            TD3,
            {"encoder_params": {"feature_size": 9}},
            {
                "actor_encoder_factory": {"type": "pixel", "params": {"feature_size": 9}},
                "critic_encoder_factory": {"type": "pixel", "params": {"feature_size": 9}},
            },
        ),
        (
            TD3,
            {"actor_weight_decay": 0.2},
            {"actor_optim_factory": {"type": "adam", "params": {"weight_decay": 0.2}}},
        ),
        (DQN, {"momentum": 0.9}, {"optim_factory": {"type": "sgd", "params": {"momentum": 0.9}}}),
        (DQN, {"share_encoder": True}, {"q_func_factory": {"type": "mean", "params": {"share_encoder": True}}}),
        (
            TD3,
            {"share_encoder": True, "bootstrap": True, "q_func_type": "qr"},
            {"q_func_factory": {"type": "qr", "params": {"share_encoder": True, "bootstrap": True}}},
        ),
        (
            DQN,
            {"q_func_factory": QRQFunctionFactory(5), "bootstrap": True, "share_encoder": False},
            {"q_func_factory": QRQFunctionFactory(5, bootstrap=True)},
        ),
        (DQN, {"share_encoder": False, "n_augmentations": 1, "augmentation": [], "dynamics": None}, {}),
    ],
)
def test_names_of_the_2020_documentation_are_translated_with_a_warning(cls, old, new):
    with pytest.warns(FutureWarning, match="2020 documentation"):
        algo = cls(**old)
    assert {k: getattr(algo, k) for k in new} == new
    assert clone(algo).get_params() == algo.get_params()


def test_translated_encoder_params_build_that_encoder():
    with pytest.warns(FutureWarning, match="encoder_factory="):
        algo = DQN(encoder_params={"hidden_units": [8]})
    shapes = [tuple(p.shape) for p in algo.create_impl((3,), 2).impl.q_funcs.parameters()]
    assert shapes == [(8, 3), (8,), (2, 8), (2,)]


@pytest.mark.parametrize(
    ("cls", "params"),
    [
        (DQN, {"optim_factory": "rmsprop", "eps": 1.0}),
        (DQN, {"encoder_factory": VectorEncoderFactory(hidden_units=(7,)), "use_batch_norm": True}),
        (DQN, {"q_func_type": "qr", "q_func_factory": "mean"}),
        (TD3, {"critic_encoder_factory": "dense", "encoder_params": {"hidden_units": [3]}}),
    ],
)
def test_an_old_name_does_not_overwrite_what_is_given_by_its_new_one(cls, params):
    with pytest.raises(TypeError, match="a name of the 2020 documentation, together with .*: give one"):
        cls(**params)


@pytest.mark.parametrize("name", ["share_encoder", "bootstrap"])
def test_an_old_name_that_asks_for_something_unknown_is_not_ignored(name):
    with pytest.raises(TypeError, match=f"has no parameter '{name}'"):
        BC(**{name: True})  # has no Q function
    with pytest.raises(TypeError, match=f"has no parameter '{name}'"):
        DQN(**{name: "yes"})


def test_defaults_are_those_of_release_1_1_1():
    assert {f: getattr(TD3PlusBC(), f) for f in ("batch_size", "tau", "alpha", "update_actor_interval", "scaler")} == {
        "batch_size": 256, "tau": 0.005, "alpha": 2.5, "update_actor_interval": 2, "scaler": "standard",
    }  # fmt: skip
    assert (DQN().learning_rate, DQN().batch_size, DQN().target_update_interval) == (6.25e-5, 32, 8000)
    assert (BC().learning_rate, BC().batch_size, BC().optim_factory) == (1e-3, 100, AdamFactory())


def test_factories_are_immutable_and_comparable():
    assert VectorEncoderFactory(hidden_units=[8, 8]) == VectorEncoderFactory(hidden_units=(8, 8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        PixelEncoderFactory().feature_size = 3


def test_a_switch_takes_true_and_false_only():
    with pytest.raises(ValueError, match="CQL: soft_q_backup must be True or False, got 'no'"):
        CQL(soft_q_backup="no").create_impl((3,), 2)


def test_a_bound_without_end_is_written_as_open():
    with pytest.raises(ValueError, match=r"it must lie in \[0, inf\)"):
        CQL(conservative_weight=float("inf")).create_impl((3,), 2)

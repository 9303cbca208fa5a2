import inspect

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

import d3rlpy
from d3rlpy.algos import BC, DQN, TD3, DiscreteCQL, DoubleDQN, TD3PlusBC, create_algo, get_algo
from d3rlpy.gpu import Device
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.preprocessing import StandardScaler
from tests.helpers import make_dataset

QUIET = {"save_metrics": False, "verbose": False, "show_progress": False}
SMALL = VectorEncoderFactory(hidden_units=(8,))
SMALL_AC = {"actor_encoder_factory": SMALL, "critic_encoder_factory": SMALL}


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


class TestActing:
    @pytest.mark.parametrize(
        "method", ["predict", "sample_action", "save_model", "save_policy", "update", "saved_params"]
    )
    def test_before_training_every_method_says_what_to_do(self, method):
        args = [] if method == "saved_params" else [np.zeros((1, 3))]
        with pytest.raises(
            RuntimeError, match=f"DQN has no networks yet, so {method} can't work: call fit, load_model"
        ):
            getattr(DQN(), method)(*args)

    def test_predicting_values_before_training_says_what_to_do(self):
        with pytest.raises(RuntimeError, match="has no networks yet, so predict_value can't work"):
            DQN().predict_value([[0.0]], [0])

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (
                np.zeros(3),
                r"x has the shape \(3,\), DQN needs \(batch, 3\): add a batch axis, x\[None\]",
            ),
            (np.zeros((2, 4)), r"x has the shape \(2, 4\), DQN needs \(batch, 3\)$"),
            (np.zeros((1, 2, 3)), r"x has the shape \(1, 2, 3\)"),
        ],
    )
    def test_an_observation_of_the_wrong_shape_is_an_error(self, x, message):
        algo = DQN(encoder_factory=SMALL).create_impl((3,), 2)
        with pytest.raises(ValueError, match=message):
            algo.predict(x)

    def test_images_that_are_not_uint8_are_an_error(self):
        algo = DQN().create_impl((4, 84, 84), 2)
        with pytest.raises(ValueError, match=r"x holds images of float64, they must be uint8 in \[0, 255\]"):
            algo.predict(np.zeros((1, 4, 84, 84)))

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            ([[0.0, np.nan, 0.0]], "x has NaN or infinity in row 0"),
            ([["a", "b", "c"]], "x must hold numbers"),
            (np.ma.masked_equal(np.zeros((1, 3)), 0), r"x is a masked array, .* fill it first, x.filled"),
        ],
    )
    def test_an_observation_that_is_no_number_is_an_error(self, x, message):
        with pytest.raises(ValueError, match=message):
            DQN(encoder_factory=SMALL).create_impl((3,), 2).predict(x)

    def test_an_id_that_is_no_whole_number_is_an_error(self):
        with pytest.raises(ValueError, match="action must hold whole numbers of an integer type, got float64"):
            DQN(encoder_factory=SMALL).create_impl((3,), 2).predict_value(np.zeros((1, 3)), [0.9])

    @pytest.mark.parametrize("action", [[2], [-1], [0, 1], [[0]]])
    def test_an_action_that_does_not_exist_is_an_error(self, action):
        algo = DQN(encoder_factory=SMALL).create_impl((3,), 2)
        with pytest.raises(ValueError, match="action must be 1 ids below 2"):
            algo.predict_value(np.zeros((1, 3)), action)

    def test_continuous_actions_of_the_wrong_shape_are_an_error(self):
        algo = TD3(**SMALL_AC).create_impl((3,), 2)
        with pytest.raises(ValueError, match=r"action has the shape \(2,\), it must be \(1, 2\)"):
            algo.predict_value(np.zeros((1, 3)), np.zeros(2))

    def test_lists_read_only_strided_and_float64_observations_give_the_same_actions(self):
        algo = TD3(**SMALL_AC, random_state=0).create_impl((3,), 2)
        x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
        expected = algo.predict(x)
        frozen = x.copy()
        frozen.flags.writeable = False
        for same in (list(x), x.astype(np.float64), np.asfortranarray(x), frozen, x.tolist()):
            assert np.array_equal(algo.predict(same), expected)
        assert np.array_equal(algo.predict(np.zeros((0, 3))), np.zeros((0, 2)))

    def test_discrete_actions_are_integers_and_continuous_ones_float32(self):
        x = np.zeros((2, 3))
        assert DQN(encoder_factory=SMALL).create_impl((3,), 2).predict(x).dtype == np.int64
        assert TD3(**SMALL_AC).create_impl((3,), 2).predict(x).dtype == np.float32

    def test_action_scalers_act_on_predictions_samples_and_values(self):
        data = make_dataset(discrete=False)
        algo = BC(encoder_factory=SMALL, action_scaler="min_max", random_state=0).fit(data, n_steps=1, **QUIET)
        low, high = data.actions.min(axis=0), data.actions.max(axis=0)
        with torch.no_grad():
            inner = algo.impl.best_action(torch.from_numpy(data.observations)).numpy()
        expected = (inner + 1) / 2 * (high - low) + low
        assert algo.predict(data.observations) == pytest.approx(expected, abs=1e-5)
        td3 = TD3(**SMALL_AC, action_scaler="min_max", random_state=0).fit(data, n_steps=1, **QUIET)
        scaled = torch.from_numpy((data.actions - low) / (high - low) * 2 - 1)
        with torch.no_grad():
            value = td3.impl.value(torch.from_numpy(data.observations), scaled).mean(dim=0).numpy()
        assert td3.predict_value(data.observations, data.actions) == pytest.approx(value, abs=1e-5)


class TestBuilding:
    def test_create_impl_returns_the_object_and_works_once(self):
        algo = DQN(encoder_factory=SMALL)
        assert algo.create_impl((3,), 2) is algo
        assert (algo.observation_shape, algo.action_size, algo.grad_step_) == ((3,), 2, 0)
        with pytest.raises(RuntimeError, match=r"this DQN is built already: sklearn.base.clone gives a fresh one"):
            algo.create_impl((3,), 2)

    def test_build_with_dataset_fits_the_scalers(self):
        data = make_dataset(discrete=True)
        algo = DQN(encoder_factory=SMALL, scaler="standard").build_with_dataset(data)
        seen = np.stack([t.observation for e in data for t in e])
        assert algo.fitted_scalers_.observation.mean == pytest.approx(seen.mean(axis=0), abs=1e-5)
        assert algo.scaler == "standard"

    def test_the_users_scaler_object_is_not_fitted(self):
        scaler = StandardScaler()
        algo = DQN(encoder_factory=SMALL, scaler=scaler).build_with_dataset(make_dataset(discrete=True))
        assert algo.scaler is scaler
        assert scaler.mean is None

    def test_build_with_env_takes_the_shapes_of_the_spaces(self):
        import gymnasium

        algo = DQN(encoder_factory=SMALL).build_with_env(gymnasium.make("CartPole-v1"))
        assert (algo.observation_shape, algo.action_size) == ((4,), 2)
        td3 = TD3(**SMALL_AC, action_scaler="min_max").build_with_env(gymnasium.make("Pendulum-v1"))
        assert (td3.observation_shape, td3.action_size) == ((3,), 1)
        assert np.abs(td3.predict(np.random.default_rng(0).normal(size=(50, 3)) * 100)).max() > 1.0
        with pytest.raises(ValueError, match="DQN learns discrete actions, those of env are continuous"):
            DQN().build_with_env(gymnasium.make("Pendulum-v1"))

    @pytest.mark.parametrize("use_gpu", [True, 0, Device(0), "cuda:1"])
    @pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
    def test_a_missing_gpu_is_a_clear_error(self, use_gpu):
        with pytest.raises(RuntimeError, match=r"torch sees 0 CUDA device\(s\): pass use_gpu=False"):
            DQN(use_gpu=use_gpu).create_impl((3,), 2)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_a_gpu_holds_networks_and_batches(self):
        data = make_dataset(discrete=False)
        algo = TD3PlusBC(**SMALL_AC, use_gpu=True, random_state=0).fit(data, n_steps=5, **QUIET)
        assert all(p.is_cuda for p in algo.impl.parameters())
        assert algo.predict(data.observations).shape == data.actions.shape


class TestParameters:
    def test_unfitted_and_fitted_are_told_apart_as_scikit_learn_does(self):
        with pytest.raises(NotFittedError):
            check_is_fitted(DQN())
        check_is_fitted(DQN(encoder_factory=SMALL).create_impl((3,), 2))

    def test_repr_shows_what_differs_from_the_defaults(self):
        assert repr(TD3PlusBC(alpha=1.0, n_critics=3)) == "TD3PlusBC(alpha=1.0, n_critics=3)"

    def test_set_params_changes_what_can_be_changed(self):
        algo = TD3PlusBC(**SMALL_AC).create_impl((3,), 2)
        assert algo.set_params(alpha=0.5, actor_learning_rate=0.1) is algo
        assert algo.impl.hp.alpha == 0.5
        assert algo.impl.actor_optim.learning_rate == 0.1

    @pytest.mark.parametrize(
        "params",
        [{"n_critics": 3}, {"actor_encoder_factory": SMALL}, {"q_func_factory": "qr"}, {"scaler": None},
         {"random_state": 1}, {"use_gpu": True}, {"n_frames": 2}, {"critic_optim_factory": "sgd"}],
    )  # fmt: skip
    def test_set_params_refuses_to_reshape_what_is_built(self, params):
        algo = TD3PlusBC(**SMALL_AC)
        algo.set_params(**params)
        algo = TD3PlusBC(**SMALL_AC).create_impl((3,), 2)
        with pytest.raises(ValueError, match=r"shapes what is built already: set it on sklearn.base.clone\(algo\)"):
            algo.set_params(**params)

    def test_set_params_reaches_into_factories_as_a_grid_search_does(self):
        algo = DQN(encoder_factory=SMALL, scaler=StandardScaler(eps=0.1))
        algo.set_params(encoder_factory__hidden_units=(4,), scaler__eps=0.2)
        assert algo.encoder_factory == VectorEncoderFactory(hidden_units=(4,))
        assert algo.scaler.eps == 0.2
        assert SMALL.hidden_units == (8,)
        with pytest.raises(ValueError, match="q_func_factory='mean' has no parameter 'n_quantiles': give an object"):
            algo.set_params(q_func_factory__n_quantiles=3)

    def test_set_params_checks_names_and_bounds(self):
        with pytest.raises(ValueError, match=r"DQN has no parameter 'gama'. Did you mean 'gamma'\?"):
            DQN().set_params(gama=0.9)
        with pytest.raises(ValueError, match="gamma=2 is out of bounds"):
            DQN().set_params(gamma=2)

    def test_fit_and_fitter_show_their_arguments(self):
        for method in (DQN.fit, DQN.fitter):
            names = list(inspect.signature(method).parameters)
            assert names[:4] == ["self", "dataset", "n_epochs", "n_steps"]
            assert "n_steps_per_epoch : updates between two evaluations" in method.__doc__
        with pytest.raises(TypeError, match="n_step"):
            DQN().fit(make_dataset(discrete=True), n_step=3)

    def test_the_global_seed_decides_where_no_random_state_is_given(self):
        first = []
        for _ in range(2):
            d3rlpy.seed(5)
            first.append(weights(DQN(encoder_factory=SMALL).create_impl((3,), 2).impl))
        assert torch.equal(*first)
        assert not torch.equal(first[0], weights(DQN(encoder_factory=SMALL).create_impl((3,), 2).impl))

    def test_algorithms_are_found_by_name_and_action_space(self):
        assert get_algo("cql", discrete=True) is DiscreteCQL
        assert get_algo("double_dqn", discrete=True) is DoubleDQN
        assert get_algo("bc", discrete=False) is BC
        assert create_algo("td3_plus_bc", discrete=False, alpha=1.0).alpha == 1.0
        with pytest.raises(ValueError, match="no algorithm for continuous actions is called 'dqn'"):
            get_algo("dqn", discrete=False)


class TestTransfer:
    def test_a_policy_is_copied_to_its_slow_copy_too(self):
        bc = BC(encoder_factory=SMALL, random_state=1).create_impl((3,), 2)
        td3 = TD3(**SMALL_AC, random_state=2).create_impl((3,), 2)
        td3.copy_policy_from(bc)
        assert torch.equal(weights(td3.impl.policy), weights(bc.impl.policy))
        assert torch.equal(weights(td3.impl.targ_policy), weights(bc.impl.policy))

    def test_slow_copies_are_copied_from_slow_copies(self):
        source = TD3(**SMALL_AC, random_state=1).fit(make_dataset(discrete=False), n_steps=4, **QUIET)
        goal = TD3PlusBC(**SMALL_AC, scaler=None, random_state=2).create_impl((3,), 2)
        goal.copy_q_function_from(source)
        assert torch.equal(weights(goal.impl.q_funcs), weights(source.impl.q_funcs))
        assert torch.equal(weights(goal.impl.targ_q_funcs), weights(source.impl.targ_q_funcs))
        assert not torch.equal(weights(goal.impl.targ_q_funcs), weights(source.impl.q_funcs))

    def test_a_copied_policy_acts_like_its_source(self):
        source = DoubleDQN(encoder_factory=SMALL, random_state=1).create_impl((3,), 2)
        goal = DQN(encoder_factory=SMALL, random_state=2).create_impl((3,), 2)
        x = np.random.default_rng(0).normal(size=(50, 3))
        goal.copy_policy_from(source)
        assert np.array_equal(goal.predict(x), source.predict(x))

    def test_networks_with_another_activation_are_other_networks(self):
        tanh = VectorEncoderFactory(hidden_units=(8,), activation="tanh")
        source = BC(encoder_factory=tanh).create_impl((3,), 2)
        with pytest.raises(ValueError, match="are different networks"):
            TD3(**SMALL_AC).create_impl((3,), 2).copy_policy_from(source)

    def test_other_scalers_are_a_warning(self):
        source = BC(encoder_factory=SMALL).create_impl((3,), 2)
        goal = TD3(**SMALL_AC, action_scaler="min_max").create_impl((3,), 2)
        with pytest.warns(UserWarning, match="BC has other scalers, and only weights are copied"):
            goal.copy_policy_from(source)

    def test_other_networks_are_an_error_and_change_nothing(self):
        goal = TD3(**SMALL_AC, random_state=2).create_impl((3,), 2)
        before = weights(goal.impl)
        bigger = BC(random_state=1).create_impl((3,), 2)
        with pytest.raises(ValueError, match="policy of TD3 and of BC are different networks"):
            goal.copy_policy_from(bigger)
        with pytest.raises(ValueError, match="BC has no q_funcs, so copy_q_function_from has nothing to copy"):
            goal.copy_q_function_from(bigger)
        assert torch.equal(weights(goal.impl), before)

    def test_reset_optimizers_act_like_new_ones(self):
        algo = DQN(encoder_factory=SMALL).fit(make_dataset(discrete=True), n_steps=3, **QUIET)
        algo.reset_optimizer_states()
        assert algo.impl.optim.torch_optim.state_dict()["state"] == {}


def test_cloning_a_trained_object_is_cheap_and_untrained():
    algo = DQN(encoder_factory=SMALL).fit(make_dataset(discrete=True), n_steps=1, **QUIET)
    assert clone(algo).impl is None

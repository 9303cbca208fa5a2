"""Several seeds and hyper-parameters of one algorithm, trained together, with means and intervals over the seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone

from .base import Algo
from .context import disable_parallel
from .joint import reason_apart
from .registry import nearest
from .signatures import same_arguments
from .training import epochs_of, runs_of
from .training.loop import as_list, named_scorers, offline_run
from .training.run import whole_number

CONFIDENCE = 0.95


class ManyRuns(BaseEstimator):
    """One algorithm with several seeds, and perhaps several settings, trained together.

    Runs that differ in their seed and in numbers with a point (``alpha``, ``tau``, ``gamma``, learning rates, ...) are
    updated as one where that is faster; others are trained one after the other. Each learns what it would learn alone.

    Parameters
    ----------
    estimator : what is trained; it stays as it is, the runs are clones.
    params : dictionaries of hyper-parameters, one for each setting; None for the estimator as it is.
    seeds : the ``random_state`` of the runs of each setting: a number n means 0, 1, ..., n - 1.

    Attributes
    ----------
    estimators_ : the trained estimators, setting after setting, those of one setting in the order of the seeds.
    cv_results_ : a table as scikit-learn's searches have it: a dictionary of columns with one entry for each setting,
        for ``pandas.DataFrame``. ``params``, ``param_{name}``, and for each metric of the last epoch ``mean_{metric}``,
        ``std_{metric}`` (of the seeds), ``low_{metric}`` and ``high_{metric}`` (95 % interval of the mean by Student's
        t, NaN for one seed), and ``seed{s}_{metric}``. Errors are as they are, not negated.

    Examples
    --------
    >>> from d3rlpy.algos import TD3PlusBC
    >>> ManyRuns(TD3PlusBC(), seeds=5)
    ManyRuns(estimator=TD3PlusBC())
    """

    def __init__(
        self,
        estimator: Algo,
        params: Sequence[Mapping[str, Any]] | None = None,
        seeds: int | Sequence[int] = 5,
    ):
        self.estimator = estimator
        self.params = params
        self.seeds = seeds

    @same_arguments(offline_run)
    def fit(self, *args: Any, **kwargs: Any) -> Self:
        """Train all runs, each with these arguments. Returns ``self``.

        Logs and checkpoints of a run go to a folder of its own, whose name has the number of the run. Everything that
        can be wrong is said before the first update. ``estimators_`` are there from then on, so that what an error or
        an interruption leaves is not lost.
        """
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)  # results of an earlier fit
        settings, seeds = self._settings(), self._seeds()
        algos = [self._clone(setting, seed) for setting, seed in itertools.product(settings, seeds)]
        prefix = kwargs.pop("experiment_name", None) or type(self.estimator).__name__
        verbose, show_progress = kwargs.pop("verbose", True), kwargs.pop("show_progress", True)
        args, kwargs = _read_once(args, kwargs)
        runs = runs_of(algos, [f"{prefix}_{k}" for k in range(len(algos))], *args, **kwargs)
        self.estimators_ = algos
        for group in _groups(algos):
            for _ in epochs_of([runs[k] for k in group], verbose, show_progress):
                pass
        self.cv_results_ = _table(settings, seeds, [algo.history_[-1][1] for algo in algos])
        return self

    def _settings(self) -> list[dict[str, Any]]:
        params = [{}] if self.params is None else self.params
        if isinstance(params, (str, Mapping)) or not isinstance(params, Sequence) or not len(params):
            raise ValueError(f"params={self.params!r} must be a list of dictionaries, at least one, or None")
        for setting in params:
            if not isinstance(setting, Mapping):
                raise ValueError(f"params holds {setting!r}, each setting must be a dictionary {{name: value}}")
        return [dict(setting) for setting in params]

    def _seeds(self) -> list[int]:
        given: Any = self.seeds
        if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
            return list(range(whole_number("seeds", given, 1, type(self).__name__)))
        sound = isinstance(given, (Sequence, np.ndarray)) and not isinstance(given, str) and len(given) > 0
        if not sound or any(isinstance(s, bool) or not isinstance(s, (int, np.integer)) or s < 0 for s in given):
            raise ValueError(f"seeds={given!r} must be a whole number from 1, or a list of whole numbers from 0")
        seeds = [int(s) for s in given]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds={given!r} must be different")
        return seeds

    def _clone(self, setting: dict[str, Any], seed: int) -> Algo:
        if "random_state" in setting:
            raise ValueError("a setting has random_state, which is what seeds are for: leave it out")
        if not isinstance(self.estimator, Algo):
            raise TypeError(f"estimator must be an algorithm of d3rlpy, got {type(self.estimator).__name__}")
        with disable_parallel():  # runs that are updated as one are on one device
            algo: Algo = clone(self.estimator)
        return algo.set_params(**setting, random_state=seed)


class GridSearch(ManyRuns):
    """Search over all combinations of some hyper-parameters, each trained with several seeds, by the mean of a score.

    Parameters
    ----------
    estimator : what is trained.
    param_grid : values to try, ``{name: [value, ...]}``, or a list of such dictionaries.
    seeds : as for ``ManyRuns``.
    refit : the metric that decides, one of ``scorers`` of ``fit``; None if there is only one. The greater is better,
        the smaller of errors.

    Attributes
    ----------
    best_index_, best_params_, best_score_ : the setting with the best mean, and that mean.
    best_estimator_ : of the runs of that setting the one with the middle score, not the luckiest; of two in the middle
        the worse.
    cv_results_, estimators_ : as for ``ManyRuns``, and ``rank_{metric}``, 1 for the best.

    Examples
    --------
    >>> from d3rlpy.algos import TD3PlusBC
    >>> GridSearch(TD3PlusBC(), {"alpha": [1.0, 2.5]}, seeds=3)
    GridSearch(estimator=TD3PlusBC(), param_grid={'alpha': [1.0, 2.5]}, seeds=3)
    """

    def __init__(
        self,
        estimator: Algo,
        param_grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
        seeds: int | Sequence[int] = 5,
        refit: str | None = None,
    ):
        self.estimator = estimator
        self.param_grid = param_grid
        self.seeds = seeds
        self.refit = refit

    def _settings(self) -> list[dict[str, Any]]:
        from sklearn.model_selection import ParameterGrid

        settings = [dict(setting) for setting in ParameterGrid(self.param_grid)]
        if not settings:
            raise ValueError(f"param_grid={self.param_grid!r} is empty: give values to try, {{name: [value, ...]}}")
        return settings

    @same_arguments(offline_run)
    def fit(self, *args: Any, **kwargs: Any) -> Self:
        """Train all combinations with all seeds, each with these arguments, and choose. Returns ``self``."""
        args, kwargs = _read_once(args, kwargs)
        scorers = named_scorers(kwargs.get("scorers"))
        signs = {name: -1.0 if getattr(scorer, "negated", False) else 1.0 for name, scorer in scorers.items()}
        if self.refit is not None and not isinstance(self.refit, str):
            raise ValueError(f"refit={self.refit!r} must be the name of a scorer, or None if there is only one")
        if not signs:
            raise ValueError(f"{type(self).__name__} compares settings by a score: pass scorers=, and eval_episodes=")
        if self.refit is None and len(signs) != 1:
            raise ValueError(f"refit must say which of the metrics {list(signs)} decides: pass one scorer, or refit=")
        metric = next(iter(signs)) if self.refit is None else self.refit
        if metric not in signs:
            raise ValueError(f"refit={metric!r} is none of the scorers {list(signs)}.{nearest(metric, list(signs))}")
        super().fit(*args, **kwargs)
        means = self.cv_results_[f"mean_{metric}"] * signs[metric]
        if np.isnan(means).all():
            raise ValueError(f"{metric} is not a number in any setting, so none is best: see cv_results_")
        order = np.argsort(-means, kind="stable")  # NaN comes last
        ranks = np.empty(len(means), int)
        ranks[order] = np.arange(1, len(means) + 1)
        self.cv_results_[f"rank_{metric}"] = ranks
        self.best_index_ = int(order[0])
        self.best_params_ = self.cv_results_["params"][self.best_index_]
        self.best_score_ = float(self.cv_results_[f"mean_{metric}"][self.best_index_])
        n = len(self._seeds())
        runs = self.estimators_[self.best_index_ * n : (self.best_index_ + 1) * n]
        by_score = sorted(runs, key=lambda algo: algo.history_[-1][1][metric] * signs[metric])
        self.best_estimator_ = by_score[(n - 1) // 2]
        return self


def _read_once(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``fit`` with what an iterator yields as a list: several runs read it."""
    kwargs = {name: as_list(value) for name, value in kwargs.items()}
    if args:
        args = (as_list(args[0]), *args[1:])
    return args, kwargs


def _groups(algos: Sequence[Algo]) -> Iterator[list[int]]:
    """Numbers of the runs that can be updated as one, group by group."""
    groups: list[list[int]] = []
    for k, algo in enumerate(algos):
        for group in groups:
            if reason_apart([algos[group[0]], algo]) is None:
                group.append(k)
                break
        else:
            groups.append([k])
    yield from groups


def _table(settings: list[dict[str, Any]], seeds: list[int], metrics: list[dict[str, float]]) -> dict[str, Any]:
    """``cv_results_``."""
    table: dict[str, Any] = {"params": settings}
    for name in dict.fromkeys(itertools.chain(*settings)):
        table[f"param_{name}"] = [setting.get(name) for setting in settings]
    names = dict.fromkeys(name for m in metrics for name in m if not name.startswith("time_"))
    for name in names:
        values = np.array([m.get(name, np.nan) for m in metrics]).reshape(len(settings), len(seeds))
        mean, half = values.mean(axis=1), half_width(values)
        table |= {f"mean_{name}": mean, f"std_{name}": values.std(axis=1), f"low_{name}": mean - half}
        table[f"high_{name}"] = mean + half
        table |= {f"seed{seed}_{name}": values[:, k] for k, seed in enumerate(seeds)}
    return table


def half_width(values: np.ndarray) -> np.ndarray:
    """Half the interval of the mean of each row, ``t s / sqrt(n)`` with n - 1 degrees of freedom; NaN for n = 1."""
    n = values.shape[1]
    if n == 1:
        return np.full(len(values), np.nan)
    from scipy.stats import t as student_t

    quantile = student_t.ppf(0.5 + CONFIDENCE / 2, n - 1)
    width: np.ndarray = quantile * values.std(axis=1, ddof=1) / np.sqrt(n)
    return width

"""How good an algorithm is, as functions that scikit-learn takes as scorers too."""

from .scorer import (
    SCORERS,
    average_value_estimation_scorer,
    check_scorer,
    continuous_action_diff_scorer,
    discrete_action_match_scorer,
    evaluate_on_environment,
    get_scorer,
    initial_state_value_estimation_scorer,
    natural_value,
    td_error_scorer,
)

__all__ = [
    "SCORERS",
    "average_value_estimation_scorer",
    "check_scorer",
    "continuous_action_diff_scorer",
    "discrete_action_match_scorer",
    "evaluate_on_environment",
    "get_scorer",
    "initial_state_value_estimation_scorer",
    "natural_value",
    "td_error_scorer",
]

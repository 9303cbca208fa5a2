"""Scalers of observations, actions and rewards: fitted on data, invertible, part of every exported policy."""

from .action import ACTION_SCALERS, MinMaxActionScaler, create_action_scaler, register_action_scaler
from .base import ActionScaler, RewardScaler, Scaler
from .observation import (
    SCALERS,
    MinMaxScaler,
    PixelScaler,
    StandardScaler,
    create_scaler,
    register_scaler,
)
from .reward import (
    REWARD_SCALERS,
    ClipRewardScaler,
    ConstantShiftRewardScaler,
    MinMaxRewardScaler,
    MultiplyRewardScaler,
    ReturnBasedRewardScaler,
    StandardRewardScaler,
    create_reward_scaler,
    register_reward_scaler,
)
from .scalers import Scalers

__all__ = [
    "ACTION_SCALERS",
    "REWARD_SCALERS",
    "SCALERS",
    "ActionScaler",
    "ClipRewardScaler",
    "ConstantShiftRewardScaler",
    "MinMaxActionScaler",
    "MinMaxRewardScaler",
    "MinMaxScaler",
    "MultiplyRewardScaler",
    "PixelScaler",
    "ReturnBasedRewardScaler",
    "RewardScaler",
    "Scaler",
    "Scalers",
    "StandardRewardScaler",
    "StandardScaler",
    "create_action_scaler",
    "create_reward_scaler",
    "create_scaler",
    "register_action_scaler",
    "register_reward_scaler",
    "register_scaler",
]

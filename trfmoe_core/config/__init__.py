"""Recipes and node settings: typed, checked, hashed."""

from trfmoe_core.config.load import apply_overrides, load_node_file, load_recipe, recipe_hash
from trfmoe_core.config.schema import (
    AgreementConfig,
    DataConfig,
    DrillConfig,
    ExpertsConfig,
    LogConfig,
    ModelConfig,
    NodeSettings,
    OuterConfig,
    Recipe,
    RoundsConfig,
    TrainingConfig,
    TransportConfig,
)

__all__ = [
    "AgreementConfig",
    "DataConfig",
    "DrillConfig",
    "ExpertsConfig",
    "LogConfig",
    "ModelConfig",
    "NodeSettings",
    "OuterConfig",
    "Recipe",
    "RoundsConfig",
    "TrainingConfig",
    "TransportConfig",
    "apply_overrides",
    "load_node_file",
    "load_recipe",
    "recipe_hash",
]

"""Recipes and settings of nodes: their types, and how files of them are read and checked."""

from trfmoe_core.config.data import DataConfig, PdfConfig
from trfmoe_core.config.federated import check_federated
from trfmoe_core.config.federation import (
    AgreementConfig,
    LogConfig,
    OuterConfig,
    ReputationConfig,
    RoundsConfig,
    TransportConfig,
    WitnessConfig,
)
from trfmoe_core.config.load import apply_overrides, load_node_file, load_recipe, recipe_hash
from trfmoe_core.config.model import ExpertsConfig, ModelConfig
from trfmoe_core.config.node import DrillConfig, NodeLimits, NodeSettings
from trfmoe_core.config.recipe import Recipe
from trfmoe_core.config.training import LocalConfig, TrainingConfig

__all__ = [
    "AgreementConfig",
    "DataConfig",
    "DrillConfig",
    "ExpertsConfig",
    "LocalConfig",
    "LogConfig",
    "ModelConfig",
    "NodeLimits",
    "NodeSettings",
    "OuterConfig",
    "PdfConfig",
    "Recipe",
    "ReputationConfig",
    "RoundsConfig",
    "TrainingConfig",
    "TransportConfig",
    "WitnessConfig",
    "apply_overrides",
    "check_federated",
    "load_node_file",
    "load_recipe",
    "recipe_hash",
]

"""A recipe: everything that determines a run."""

import os
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from trfmoe_core.config.data import DataConfig
from trfmoe_core.config.federation import (
    AgreementConfig,
    FairnessConfig,
    LogConfig,
    OuterConfig,
    ReputationConfig,
    RoundsConfig,
    TransportConfig,
    WitnessConfig,
)
from trfmoe_core.config.model import ExpertsConfig, ModelConfig
from trfmoe_core.config.node import NodeSettings
from trfmoe_core.config.section import Name, Section
from trfmoe_core.config.sources import DataEntry, deal_parts, resolved_entry
from trfmoe_core.config.training import LocalConfig, TrainingConfig
from trfmoe_core.places import is_hub_name, tokenizer_place


class Recipe(Section):
    """Everything that determines a run."""

    name: Name = Field("run", description="run folders are called so, with a number", examples=["clinics"])
    seed: int = Field(0, ge=0, lt=2**31, description="of initial weights and of the order of the text", examples=[7])
    run_root: str = Field("runs", description="run folders are created in it", examples=["/srv/trfmoe/runs"])
    vote: Name = Field(
        "majority",
        description="rule of the vote on experts: majority, median, mean, or one of your own",
        examples=["median"],
    )
    vote_trunk: Name | None = Field(
        None,
        description="rule of the vote on the trunk; null: as vote, but majority if vote is median",
        examples=["mean"],
    )
    model: ModelConfig = ModelConfig()
    experts: ExpertsConfig = ExpertsConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    local: LocalConfig = LocalConfig()
    rounds: RoundsConfig = RoundsConfig()
    agreement: AgreementConfig = AgreementConfig()
    reputation: ReputationConfig = ReputationConfig()
    fairness: FairnessConfig = FairnessConfig()
    witness: WitnessConfig | None = Field(
        None,
        description="null: replicas are judged by their agreement alone",
        examples=[{"data": ["public/law.txt", "public/medicine.txt"]}],
    )
    outer: OuterConfig = OuterConfig()
    transport: TransportConfig = TransportConfig()
    log: LogConfig = LogConfig()
    num_nodes: int = Field(
        3, ge=1, le=100_000, description="nodes that must be present before round 1, where nodes is empty", examples=[9]
    )
    nodes: list[NodeSettings] = Field(
        default_factory=list,
        description="one entry per node; a federation needs three",
        examples=[[{"name": "clinic", "data": ["letters"]}]],
    )

    @property
    def rule_of_trunk(self) -> str:
        """Rule of the vote on the trunk. By default no median: its result is zero where only a few nodes trained."""
        return self.vote_trunk or ("majority" if self.vote == "median" else self.vote)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of a node over the whole federated run, for the learning-rate schedule."""
        return self.rounds.total_steps

    def rounds_of_budget(self) -> int | None:
        """Returns the rounds that `training.steps` or `training.tokens` need; None if neither is given."""
        steps = self.training.budget(self.model.context)
        return None if steps is None else self.rounds.rounds_of(steps)

    @field_validator("data", mode="before", json_schema_input_type=DataConfig | list[DataEntry])
    @classmethod
    def _bare_sources(cls, data: Any) -> Any:
        return {"sources": data} if isinstance(data, list) else data

    @field_validator("nodes")
    @classmethod
    def _names(cls, nodes: list[NodeSettings]) -> list[NodeSettings]:
        names = [node.name for node in nodes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the names {twice} are used twice; give every node its own name")
        return nodes

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.nodes and "num_nodes" in self.model_fields_set and self.num_nodes != len(self.nodes):
            raise ValueError(f"num_nodes: {self.num_nodes}, but nodes lists {len(self.nodes)}; leave num_nodes out")
        if self.nodes and self.data.sources:
            raise ValueError(
                "data.sources: it is the text of a run on one machine, and nodes lists nodes with text of their own; "
                "leave one of the two out"
            )
        if self.data.packing == "best_fit" and not self.model.document_mask:
            raise ValueError(
                "data.packing: best_fit puts unrelated texts into one sequence; "
                "separate them with model.document_mask=true"
            )
        if "num_rounds" not in self.rounds.model_fields_set and (rounds := self.rounds_of_budget()):
            self.__dict__["rounds"] = self.rounds.model_copy(update={"num_rounds": rounds})
        return self

    @property
    def quorum(self) -> int:
        """Number of agreeing replicas that decide an expert before the others arrive."""
        return self.rounds.quorum or self.experts.replication // 2 + 1

    @property
    def federation_size(self) -> int:
        """Number of nodes of the run."""
        return len(self.nodes) or self.num_nodes

    def for_nodes(self) -> "Recipe":
        """Returns the recipe as it is sent to nodes: without settings of nodes and paths of the coordinator."""
        name = self.data.tokenizer
        # Of the path of a tokenizer folder only the last part is sent; `./` marks it as a folder.
        tokenizer = name if name == "byte" or is_hub_name(name) else f"./{Path(name).name}"
        data = self.data.model_copy(update={"tokenizer": tokenizer, "sources": []})
        hidden = {"nodes": [], "num_nodes": self.federation_size, "run_root": "runs", "witness": None, "data": data}
        return self.model_copy(update=hidden)

    def resolved(self, base: Path) -> "Recipe":
        """Returns the recipe with paths made absolute against `base` and a part for every `partition: auto`."""

        def absolute(path: str) -> str:
            # Not Path.resolve, which raises on a loop of links: errors of a path are reported where it is read.
            return os.path.abspath(base / os.path.expanduser(path))  # noqa: PTH100, PTH111

        nodes = [node.relocated(absolute) for node in self.nodes]
        dealt = deal_parts([node.data for node in nodes])
        nodes = [node.model_copy(update={"data": data}) for node, data in zip(nodes, dealt, strict=True)]
        sources = deal_parts([[resolved_entry(entry, absolute) for entry in self.data.sources]])[0]
        tokenizer = tokenizer_place(self.data.tokenizer, absolute)
        data = self.data.model_copy(update={"sources": sources, "tokenizer": tokenizer})
        witness = self.witness and self.witness.model_copy(
            update={"data": [resolved_entry(entry, absolute) for entry in self.witness.data]}
        )
        paths = {
            "nodes": nodes,
            "num_nodes": self.federation_size,
            "data": data,
            "run_root": absolute(self.run_root),
            "witness": witness,
        }
        return self.model_copy(update=paths)

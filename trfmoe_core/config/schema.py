"""What a recipe may say. Every section is frozen, refuses unknown keys and states its ranges."""

import os
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from trfmoe_core.config.model import ExpertsConfig, ModelConfig
from trfmoe_core.config.node import NodeSettings
from trfmoe_core.config.section import Name, Section
from trfmoe_core.config.training import LocalConfig, TrainingConfig
from trfmoe_core.data.sources import DataEntry, deal_parts, resolved_entry
from trfmoe_core.errors import ConfigError
from trfmoe_core.places import is_hub_name, tokenizer_place

Dtype = Literal["float32", "bfloat16"]


class PdfConfig(Section):
    """How PDFs become text."""

    engine: Literal["auto", "pypdf", "pdfium"] = Field(
        "pypdf",
        description="pdfium is 5 to 20 times as fast (pip install pypdfium2); auto: pdfium where it is installed",
    )
    drop_headers: bool = Field(True, description="leave out page numbers and lines that come again on page after page")


class DataConfig(Section):
    """How text becomes tokens, the same on every node."""

    USE_ONLY: ClassVar = (
        "evaluation_tokens", "packing", "processes", "loader_threads",
        "offline", "pdf", "file_timeout_s", "file_memory_mb",
    )  # fmt: skip
    """Settings that leave prepared tokens as they are: how they are used, or how PDFs are read, whose text counts."""

    tokenizer: str = Field("byte", min_length=1, description="byte, a tokenizer folder, or a name on the hub")
    piece_bytes: int = Field(4096, ge=64, le=1 << 24, description="documents are cut at page or paragraph borders")
    held_out: float = Field(0.1, gt=0, lt=1, description="fraction of pieces held out, chosen by hash")
    deduplicate: bool = Field(True, description="leave out pieces whose text came before, whatever its case and blanks")
    evaluation_tokens: int = Field(16384, ge=64, description="held-out tokens a node evaluates on every round, at most")
    packing: Literal["concatenate", "best_fit"] = Field(
        "concatenate", description="concatenate: cut wherever a sequence ends; best_fit: whole pieces, apart by a mask"
    )
    processes: int | None = Field(None, ge=1, le=1024, description="that turn text into tokens; null: one a core")
    loader_threads: int = Field(1, ge=0, le=64, description="that get batches ready ahead; 0: each when it is needed")
    file_timeout_s: float = Field(60.0, gt=0, description="processor time; a PDF that takes longer is skipped")
    file_memory_mb: int = Field(2048, ge=256, description="a PDF that needs more is recorded and skipped")
    pdf: PdfConfig = PdfConfig()
    offline: bool = Field(False, description="never touch the network: the hub's data sets and tokenizers as kept here")


class RoundsConfig(Section):
    """Rounds of the federation and how long the coordinator waits."""

    num_rounds: int = Field(12, ge=1, le=1_000_000, description="left out: enough for training.steps or .tokens")
    local_steps: int = Field(25, ge=1, le=1_000_000, description="H, optimizer steps a node and round")
    wait: Literal["all", "quorum"] = Field("all", description="quorum: whoever is beyond its time holds no round")
    quorum: int | None = Field(
        None, ge=2, description="replicas of an expert that are enough, once they agree; null: a majority, 2 of 3"
    )
    grace: float = Field(0.25, ge=0, le=10, description="waits on for this part of the time until the quorum")
    nodes_deadline_s: float = Field(120.0, gt=0, description="how long to wait for the nodes to appear")
    patience: float = Field(
        3.0, ge=1, le=100, description="a node's answer is in time up to this many times as long as the others take"
    )
    reply_deadline_s: float | None = Field(
        None,
        gt=0,
        description="how long to wait for the replies of a round; null: until all that are missing are beyond their "
        "time, an hour at most",
    )


class ReputationConfig(Section):
    """When a node that stands alone or is silent loses its experts to others, and for how long."""

    strikes: int = Field(3, ge=1, description="such rounds in a row")
    cool_off_rounds: int = Field(5, ge=1)


class AgreementConfig(Section):
    """When two replicas of one block agree."""

    cosine: float = Field(-0.1, ge=-1, le=1, description="0 where the nodes' data are alike, -0.1 otherwise")
    norm_ratio: float = Field(3.0, ge=1)
    margin: float = Field(
        2.0,
        gt=0,
        le=2,
        description="a replica so much further from a majority than the closest one is disagrees with all; about 0.3 "
        "where the nodes' data are alike, 2 is never",
    )


class WitnessConfig(Section):
    """Text by which the coordinator judges nodes whose data differ: by harm, not by direction."""

    data: list[DataEntry] = Field(
        min_length=1, description="the coordinator's files and folders, one source each; together the nodes' domains"
    )
    windows: int = Field(12, ge=2, le=4096, description="windows of the model's context a source and round")
    salt: str | None = Field(
        None, min_length=16, max_length=256, description="secret that the windows follow from; null: drawn for each run"
    )
    device: str = Field("cpu", pattern=r"^(auto|cpu|cuda|cuda:\d+)$", description="of the coordinator")
    tau_times_n: float = Field(0.2, gt=0, le=10, description="a score above this over the number of nodes convicts")
    min_t: float = Field(3.0, ge=0, description="harm over its standard error, over windows, to convict")
    floor_nats: float = Field(0.002, ge=0, description="harm below this convicts nobody, however small the gain")
    expert_floor_nats: float = Field(0.0005, ge=0, description="the same, of one node's replica of one expert")


class OuterConfig(Section):
    """What the coordinator does with a voted update."""

    optimizer: Literal["average", "nesterov"] = "average"
    learning_rate: float = Field(1.0, gt=0, le=10)
    momentum: float = Field(0.9, ge=0, lt=1, description="nesterov only")


class TransportConfig(Section):
    """What travels."""

    broadcast: Dtype = Field("float32", description="type of a whole model on its way to a node")
    difference: Literal["bfloat16", "int8"] | None = Field(
        None, description="type of the difference to what a node has; null: every round the whole model"
    )
    updates: Literal["float32", "bfloat16", "int8", "int4"] = Field(
        "float32", description="int8, int4: one scale a row; the node adds what got lost to its next update"
    )
    parcel_mb: int = Field(64, ge=1, le=512, description="blocks travel in flat buffers of at most this size")


class LogConfig(Section):
    """Where a run is shown besides its own folder."""

    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "trfmoe"


Vote = Literal["majority", "median", "mean"]


class Recipe(Section):
    """One run, whole."""

    name: Name = "run"
    seed: int = Field(0, ge=0, lt=2**31)
    run_root: str = Field("runs", description="run folders are made below it")
    vote: Vote = Field("majority", description="on experts")
    vote_trunk: Vote | None = Field(None, description="on the trunk; null: as vote, but majority in median's place")
    model: ModelConfig = ModelConfig()
    experts: ExpertsConfig = ExpertsConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    local: LocalConfig = LocalConfig()
    rounds: RoundsConfig = RoundsConfig()
    agreement: AgreementConfig = AgreementConfig()
    reputation: ReputationConfig = ReputationConfig()
    witness: WitnessConfig | None = Field(None, description="null: replicas are judged by agreement alone")
    outer: OuterConfig = OuterConfig()
    transport: TransportConfig = TransportConfig()
    log: LogConfig = LogConfig()
    num_nodes: int = Field(3, ge=3, le=100_000, description="nodes that must be present before round 1")
    nodes: list[NodeSettings] = Field(default_factory=list, description="simulation: one entry a node")

    @property
    def rule_of_trunk(self) -> Vote:
        """The rule of the trunk's vote: a median over all nodes would leave alone what only few of them trained."""
        return self.vote_trunk or ("majority" if self.vote == "median" else self.vote)

    @property
    def total_steps(self) -> int:
        """Local optimizer steps of a node over a whole federated run: what the learning-rate schedule spans."""
        return self.rounds.num_rounds * self.rounds.local_steps

    def check_federated(self) -> None:
        """Makes sure that the recipe says how long a federated run is.

        Raises:
            ConfigError: when it does not, or says two things.
        """
        if self.training.epochs is not None:
            raise ConfigError(
                f"training.epochs: {self.training.epochs:g}, but the nodes of a federation have texts of different "
                "length; give training.steps, training.tokens or rounds.num_rounds instead"
            )
        rounds = self._rounds_of_budget()
        if rounds is not None and rounds != self.rounds.num_rounds:
            name = "steps" if self.training.steps is not None else "tokens"
            raise ConfigError(
                f"training.{name}: {getattr(self.training, name)} make {rounds} rounds of {self.rounds.local_steps} "
                f"steps (rounds.local_steps), but rounds.num_rounds is {self.rounds.num_rounds}; leave one of them out"
            )

    def _rounds_of_budget(self) -> int | None:
        steps = self.training.budget(self.model.context)
        return None if steps is None else -(-steps // self.rounds.local_steps)

    @field_validator("nodes")
    @classmethod
    def _names(cls, nodes: list[NodeSettings]) -> list[NodeSettings]:
        names = [node.name for node in nodes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the names {twice} stand twice; give every node a name of its own")
        return nodes

    @model_validator(mode="after")
    def _check(self) -> Self:
        replication, quorum = self.experts.replication, self.rounds.quorum
        if self.federation_size < replication:
            key, given = ("nodes", "given") if self.nodes else ("num_nodes", "expected")
            raise ValueError(
                f"{key}: {self.federation_size} {given}, but every expert is trained by {replication} nodes "
                f"(experts.replication); have {replication} or more"
            )
        if quorum is not None and quorum > replication:
            raise ValueError(f"rounds.quorum: {quorum} of {replication} replicas (experts.replication); have fewer")
        if self.nodes and "num_nodes" in self.model_fields_set and self.num_nodes != len(self.nodes):
            raise ValueError(f"num_nodes: {self.num_nodes}, but nodes lists {len(self.nodes)}; leave num_nodes out")
        for key, rule in (("vote", self.vote), ("vote_trunk", self.rule_of_trunk)):
            if self.witness and rule != "majority":
                raise ValueError(f"witness: it judges majority votes, and {key} is {rule}; leave one of the two out")
        if self.data.packing == "best_fit" and not self.model.document_mask:
            raise ValueError(
                "data.packing: best_fit puts texts into one sequence that have nothing to do with each other; "
                "keep them apart with model.document_mask=true"
            )
        if "num_rounds" not in self.rounds.model_fields_set and (rounds := self._rounds_of_budget()):
            self.__dict__["rounds"] = self.rounds.model_copy(update={"num_rounds": rounds})
        return self

    @property
    def quorum(self) -> int:
        """Replicas of an expert that are enough to decide it before the others have come."""
        return self.rounds.quorum or self.experts.replication // 2 + 1

    @property
    def federation_size(self) -> int:
        """Number of nodes that the run expects."""
        return len(self.nodes) or self.num_nodes

    def for_nodes(self) -> "Recipe":
        """The part that travels to the nodes: no node's settings, nothing of the coordinator's own folders."""
        name = self.data.tokenizer
        # Of a tokenizer folder only its own name; the dot says that it is none on the hub.
        tokenizer = name if name == "byte" or is_hub_name(name) else f"./{Path(name).name}"
        data = self.data.model_copy(update={"tokenizer": tokenizer})
        hidden = {"nodes": [], "num_nodes": self.federation_size, "run_root": "runs", "witness": None, "data": data}
        return self.model_copy(update=hidden)

    def resolved(self, base: Path) -> "Recipe":
        """The recipe with every path made absolute against `base`."""

        def absolute(path: str) -> str:
            # Not Path.resolve: it raises on a loop of links, and what is wrong with a path is said where it is read.
            return os.path.abspath(base / os.path.expanduser(path))  # noqa: PTH100, PTH111

        nodes = [node.relocated(absolute) for node in self.nodes]
        dealt = deal_parts([node.data for node in nodes])
        nodes = [node.model_copy(update={"data": data}) for node, data in zip(nodes, dealt, strict=True)]
        data = self.data.model_copy(update={"tokenizer": tokenizer_place(self.data.tokenizer, absolute)})
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

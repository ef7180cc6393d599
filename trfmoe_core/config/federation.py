"""The part of a recipe about the federation: rounds, votes, judgement of nodes, and transport."""

from typing import Literal

from pydantic import Field

from trfmoe_core.config.section import Name, Section
from trfmoe_core.config.sources import DataEntry

Dtype = Literal["float32", "bfloat16"]


class RoundsConfig(Section):
    """Rounds of the federation and how long the coordinator waits."""

    num_rounds: int = Field(
        12,
        ge=1,
        le=1_000_000,
        description="if left out: as many as training.steps or training.tokens need",
        examples=[40],
    )
    local_steps: int = Field(25, ge=1, le=1_000_000, description="optimizer steps of a node per round", examples=[50])
    wait: Literal["all", "quorum"] = Field(
        "all", description="all: wait for every node; quorum: do not wait for nodes that take longer than `patience`"
    )
    quorum: int | None = Field(
        None, ge=2, description="replicas that decide an expert if they agree; null: a majority, 2 of 3", examples=[3]
    )
    grace: float = Field(
        0.25,
        ge=0,
        le=10,
        description="after the quorum, wait for this fraction of the time that it took",
        examples=[0.5],
    )
    nodes_deadline_s: float = Field(120.0, gt=0, description="seconds to wait for the nodes to connect", examples=[600])
    preparing_deadline_s: float | None = Field(
        None,
        gt=0,
        description="seconds to wait at the start for a connected node that prepares its data; null: reply_deadline_s, "
        "else an hour for nodes without which the run cannot start, and for others ten times as long as the slowest",
        examples=[1800],
    )
    patience: float = Field(
        3.0,
        ge=1,
        le=100,
        description="a node is in time if it takes at most this many times as long as the others",
        examples=[5],
    )
    reply_deadline_s: float | None = Field(
        None,
        gt=0,
        description="seconds to wait for the replies of a round; null: until every missing node has exceeded "
        "`patience`, at most an hour",
        examples=[900],
    )


class ReputationConfig(Section):
    """When a node that is outvoted or silent loses its experts to other nodes, and for how long."""

    strikes: int = Field(
        3, ge=1, description="rounds in a row in which a node is outvoted or silent before it sits out", examples=[5]
    )
    cool_off_rounds: int = Field(5, ge=1, description="rounds for which it sits out", examples=[10])


class FairnessConfig(Section):
    """When the end of a run says that a node's text counted for less than was planned."""

    min_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of a node's planned votes that must have counted; below it the run ends with a warning",
        examples=[0.8],
    )


class AgreementConfig(Section):
    """When two replicas of one block agree."""

    cosine: float = Field(
        -0.1,
        ge=-1,
        le=1,
        description="least cosine of their updates: 0 if the nodes have similar data, -0.1 otherwise",
        examples=[0.0],
    )
    norm_ratio: float = Field(3.0, ge=1, description="largest ratio of their updates' norms", examples=[2])
    margin: float = Field(
        2.0,
        gt=0,
        le=2,
        description="a replica whose distance to a majority exceeds that of the closest replica by this disagrees "
        "with all; about 0.3 if the nodes have similar data; 2: never",
        examples=[0.3],
    )
    pooled_cosine: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="a node whose cosines with the others, in the mean over its blocks, are below this is outvoted on "
        "all blocks; -1: never; null: 0 with optimizer muon, else never",
        examples=[0.0],
    )


class WitnessConfig(Section):
    """Text on which the coordinator measures the harm of updates, to judge nodes whose data differ."""

    data: list[DataEntry] = Field(
        min_length=1,
        description="files and folders of the coordinator, each a source; together they cover the nodes' domains",
        examples=[["public/law.txt", "public/medicine.txt"]],
    )
    windows: int = Field(
        12, ge=2, le=4096, description="windows of the model's context per source and round", examples=[24]
    )
    salt: str | None = Field(
        None,
        min_length=16,
        max_length=256,
        description="secret that determines the windows; null: drawn for each run",
        examples=["correct horse battery staple"],
    )
    device: str = Field(
        "cpu",
        pattern=r"^(auto|cpu|cuda|cuda:\d+)$",
        description="device of the coordinator that measures the harm",
        examples=["cuda"],
    )
    tau_times_n: float = Field(
        0.2, gt=0, le=10, description="a score above this value divided by the number of nodes convicts", examples=[0.1]
    )
    min_t: float = Field(
        3.0, ge=0, description="least ratio of harm to its standard error over windows that convicts", examples=[4]
    )
    floor_nats: float = Field(
        0.002, ge=0, description="harm below this, in nats a token, convicts nobody", examples=[0.005]
    )
    expert_floor_nats: float = Field(
        0.0005, ge=0, description="the same for one node's replica of one expert", examples=[0.001]
    )


class OuterConfig(Section):
    """How the coordinator applies a voted update."""

    optimizer: Name = Field("average", description="average, nesterov, or one of your own", examples=["nesterov"])
    learning_rate: float = Field(1.0, gt=0, le=10, description="factor of the voted update", examples=[0.7])
    momentum: float = Field(0.9, ge=0, lt=1, description="nesterov only", examples=[0.8])


class TransportConfig(Section):
    """Number types and sizes of messages."""

    broadcast: Dtype = Field("float32", description="type of a whole model that is sent to a node")
    difference: Literal["bfloat16", "int8"] | None = Field(
        None,
        description="type of the difference to the model that a node has; null: the whole model is sent every round",
    )
    updates: Literal["float32", "bfloat16", "int8", "int4"] = Field(
        "float32", description="int8, int4: with one scale per row; the node adds the rounding error to its next update"
    )
    parcel_mb: int = Field(
        64, ge=1, le=512, description="blocks are sent in flat buffers of at most this size", examples=[16]
    )


class LogConfig(Section):
    """Where the metrics of a run are sent besides its run folder."""

    wandb: Literal["off", "offline", "online"] = Field(
        "off", description="Weights & Biases; offline: written below the run folder, without a key"
    )
    wandb_project: str = Field("trfmoe", description="project that the runs are listed in", examples=["clinics"])
    sinks: list[Name] = Field(
        default_factory=list,
        description="further metric sinks: prometheus, or one of your own",
        examples=[["prometheus"]],
    )
    prometheus_port: int = Field(
        9464,
        ge=0,
        le=65535,
        description="port on the coordinator's loopback address for the sink prometheus; 0: a free one",
        examples=[9500],
    )

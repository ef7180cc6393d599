"""How the nodes train together."""

from typing import Literal

from pydantic import Field

from trfmoe_core.config.section import Section
from trfmoe_core.config.sources import DataEntry

Dtype = Literal["float32", "bfloat16"]


class RoundsConfig(Section):
    """Rounds of the federation and how long the coordinator waits."""

    num_rounds: int = Field(12, ge=1, le=1_000_000, description="left out: enough for training.steps or .tokens")
    local_steps: int = Field(25, ge=1, le=1_000_000, description="H, optimizer steps a node and round")
    wait: Literal["all", "quorum"] = Field("all", description="quorum: a slow node does not hold a round")
    quorum: int | None = Field(
        None, ge=2, description="replicas of an expert that are enough, once they agree; null: a majority, 2 of 3"
    )
    grace: float = Field(0.25, ge=0, le=10, description="waits on for this part of the time until the quorum")
    nodes_deadline_s: float = Field(120.0, gt=0, description="how long to wait for the nodes to appear")
    reply_deadline_s: float = Field(3600.0, gt=0, description="how long to wait for the replies of a round")


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

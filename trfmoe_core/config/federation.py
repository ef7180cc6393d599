"""The part of a recipe about the federation: rounds, votes, judgement of nodes, and transport."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from trfmoe_core.config.section import Name, Section
from trfmoe_core.config.sources import DataEntry

Dtype = Literal["float32", "bfloat16"]
MOST_STEPS = 1_000_000
"""Steps of a round, and rounds of a run, at most."""

_Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]


class RoundsConfig(Section):
    """Rounds of the federation and how long the coordinator waits."""

    num_rounds: int = Field(
        12,
        ge=1,
        le=MOST_STEPS,
        description="if left out: as many as training.steps or training.tokens need",
        examples=[40],
    )
    local_steps: _Steps | dict[_Steps, _Steps] = Field(
        25,
        description="optimizer steps of a node per round; {1: 10, 6: 25}: 10 from round 1 on and 25 from round 6 on",
        examples=[50],
    )
    momentum_every: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="rounds from one vote on muon's momentum to the next; all nodes go on with the voted one, and what "
        "travels grows by nearly the size of the blocks in these rounds; null: nodes keep their own",
        examples=[1],
    )
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

    @field_validator("local_steps", mode="before")
    @classmethod
    def _in_order(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        # A mapping that was JSON has keys of text.
        found = {_whole(key, "a round"): _whole(value, "its steps") for key, value in given.items()}
        if 1 not in found or len(found) < len(given):
            raise ValueError(
                f"the rounds {', '.join(str(key) for key in given)[:80] or '(none)'}: the first has to be round 1, and "
                "none may come twice, as in {1: 10, 6: 25} for 10 steps in rounds 1 to 5 and 25 from round 6 on"
            )
        return dict(sorted(found.items()))

    def steps_in(self, round_number: int) -> int:
        """Returns the optimizer steps of a node in a round; round 1 is the first."""
        return [steps for first, _, steps in self._stretches() if first <= round_number][-1]

    def steps_before(self, round_number: int) -> int:
        """Returns the optimizer steps of a node in all rounds before a round, which is the number of its first step."""
        return sum(
            steps * max(0, (round_number if end is None else min(round_number, end)) - first)
            for first, end, steps in self._stretches()
        )

    def rounds_of(self, steps: int) -> int:
        """Returns the number of rounds after which a node has made at least so many steps."""
        rounds, left = 0, steps
        for first, end, a_round in self._stretches():
            needed = -(-left // a_round)
            if end is None or needed <= end - first:
                return rounds + needed
            rounds, left = end - 1, left - a_round * (end - first)
        return rounds

    def end_after(self, step: int) -> int:
        """Returns the number of steps after which the first round ends that is not over after `step` steps."""
        return self.steps_before(self.rounds_of(step + 1) + 1)

    def most_steps_until(self, round_number: int) -> int:
        """Returns the optimizer steps of a node in the longest round up to this one."""
        return max(steps for first, _, steps in self._stretches() if first <= round_number)

    def shares_momentum(self, round_number: int) -> bool:
        """Returns whether nodes send their momentum in a round; the last round's would be of no use."""
        every = self.momentum_every
        return every is not None and round_number % every == 0 and round_number < self.num_rounds

    @property
    def total_steps(self) -> int:
        """Optimizer steps of a node in all rounds."""
        return self.steps_before(self.num_rounds + 1)

    @property
    def fewest_steps(self) -> int:
        """Optimizer steps of a node in the shortest round of the run."""
        return min(steps for first, _, steps in self._stretches() if first <= self.num_rounds)

    @property
    def steps_text(self) -> str:
        """The steps of the rounds in words, such as `25 steps` or `10 steps, 25 from round 6 on`."""
        (_, _, begin), *later = self._stretches()
        return ", ".join([f"{begin} steps", *(f"{steps} from round {first} on" for first, _, steps in later)])

    def _stretches(self) -> Iterator[tuple[int, int | None, int]]:
        """Yields stretches of equal rounds: the first round, the round after the last one, and the steps of each."""
        given = self.local_steps if isinstance(self.local_steps, dict) else {1: self.local_steps}
        yield from zip(given, [*list(given)[1:], None], given.values(), strict=True)


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

    @property
    def momentum(self) -> str:
        """Type of the voted momentum that nodes are sent."""
        return self.difference or self.broadcast


class LogConfig(Section):
    """Where the metrics of a run are sent besides its run folder."""

    wandb: Literal["off", "offline", "online"] = Field(
        "off", description="Weights & Biases; offline: written below the run folder, without a key"
    )
    wandb_project: str = Field("trfmoe", description="project that the runs are listed in", examples=["clinics"])
    tensorboard: bool = Field(
        False, description="write for TensorBoard, below the run folder; needs pip install tensorboard"
    )
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


def _whole(value: Any, what: str) -> int:
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if type(number) is not int or not 1 <= number <= MOST_STEPS:
        raise ValueError(f"{str(value)[:40]!r} as {what}; give a whole number from 1 to {MOST_STEPS:,}")
    return number

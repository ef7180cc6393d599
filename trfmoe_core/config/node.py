"""What a node's own settings may say: its owner's business, never a coordinator's."""

from collections.abc import Callable
from typing import Literal, Self

from pydantic import Field, model_validator

from trfmoe_core.config.section import Name, Section
from trfmoe_core.config.sources import DataEntry, resolved_entry
from trfmoe_core.places import tokenizer_place


class DrillConfig(Section):
    """A fault that a node plays on purpose to test the federation."""

    attack: Name = Field(
        "scale",
        description="name of an attack in clients/attacks; `trfmoe drill --list` shows all",
        examples=["sign_flip"],
    )
    factor: float = Field(
        -10.0, description="factor of the update, of its norm or of the token count, by attack", examples=[100.0]
    )
    delay_s: float = Field(
        5.0, ge=0, description="seconds by which the node's replies are late, for slow only", examples=[30]
    )
    from_round: int = Field(1, ge=1, description="first round in which it is played", examples=[4])
    to_round: int | None = Field(None, ge=1, description="last such round; null: until the end", examples=[8])

    def active(self, round_number: int) -> bool:
        """Returns True if the fault is played in this round."""
        return self.from_round <= round_number and (self.to_round is None or round_number <= self.to_round)

    @property
    def label(self) -> str:
        """The name under which the attack shows in the run's events; it holds the factor if that was chosen."""
        usual = type(self).model_fields["factor"].default
        return self.attack if self.factor == usual else f"{self.attack} x{self.factor:g}"


class NodeLimits(Section):
    """Limits set by a node's owner. A request for more is refused, or the node sits out the round.

    The least steps, batch and tokens are there because an update shows which tokens it was trained on, the more plainly
    the fewer they were (`docs/privacy.md`).
    """

    experts: int | None = Field(
        None, ge=0, description="most experts that this node holds, over all layers; null: no limit", examples=[16]
    )
    memory_mb: int | None = Field(
        None, ge=64, description="most memory, in MiB, that training may use; null: no limit", examples=[8192]
    )
    disk_mb: int | None = Field(
        None,
        ge=1,
        description="most room, in MB, for state and cache; what is left of other runs goes first; null: no limit",
        examples=[20000],
    )
    min_steps: int = Field(2, ge=1, description="least optimizer steps a round", examples=[10])
    min_batch: int = Field(2, ge=1, description="least sequences a step, over accumulation and devices", examples=[8])
    min_tokens: int = Field(512, ge=1, description="least tokens a round", examples=[10000])
    min_evaluation_tokens: int = Field(
        256, ge=1, description="least held-out tokens that a loss is told of", examples=[4096]
    )
    network: bool = Field(True, description="false: no run makes this node ask the Hugging Face hub for anything")
    hours: str | None = Field(
        None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$",
        description="when it works for a run at all, by its own clock; null: always",
        examples=["20:00-06:00"],
    )
    data_sets: dict[str, list[DataEntry]] | None = Field(
        None,
        description="name of a run -> entries of `data` that it may train on; others are refused; null: all, for any",
        examples=[{"clinics": ["letters"]}],
    )


class NodeSettings(Section):
    """One node's own settings, such as its name, data and device. The coordinator has no influence on them."""

    name: Name = Field(description="name of the node in the run's journal and report", examples=["clinic"])
    zone: Name | None = Field(
        None,
        description="what may fail together, such as a site: the replicas of an expert are put into different zones",
        examples=["north"],
    )
    data: list[DataEntry] = Field(
        min_length=1,
        description="files and folders (docs/data.md lists the formats), or other sources (trfmoe_core/data/sources)",
        examples=[["papers", "shard.parquet"]],
    )
    tokenizer: str | None = Field(
        None, description="folder of the recipe's tokenizer on this node; null: as the recipe says", examples=["bpe"]
    )
    device: str | None = Field(
        None,
        pattern=r"^(auto|cpu|cuda|cuda:\d+)$",
        description="device that trains; null: as training.device",
        examples=["cuda:1"],
    )
    devices: int | Literal["all"] | None = Field(
        None,
        description="number of devices that train; all: every CUDA device; null: as training.devices",
        examples=["all"],
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; null: as training.threads", examples=[8])
    state_dir: str | None = Field(
        None,
        description="what the node keeps from round to round; null: the user's state folder",
        examples=["/srv/trfmoe/state"],
    )
    cache_dir: str | None = Field(
        None,
        description="prepared tokens and downloads; null: the user's cache folder",
        examples=["/srv/trfmoe/cache"],
    )
    salt: str | None = Field(
        None,
        max_length=256,
        description="secret that decides the order of the node's batches, with the recipe's seed; null: drawn for each "
        "run and kept with its state; in a simulation none",
        examples=["correct horse battery staple"],
    )
    stay_minutes: float = Field(
        10.0,
        ge=0,
        le=1440,
        description="how long its process waits for the next message; 0: a new one every time",
        examples=[0],
    )
    limits: NodeLimits = NodeLimits()
    drill: DrillConfig | None = Field(
        None, description="a fault that this node plays on purpose; null: none", examples=[{"attack": "sign_flip"}]
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for run, entries in (self.limits.data_sets or {}).items():
            unknown = [entry for entry in entries if entry not in self.data]
            if unknown or not entries:
                raise ValueError(f"limits.data_sets.{run}: {unknown or entries} is none of data's {self.data}")
        if isinstance(self.devices, int) and not 1 <= self.devices <= 1024:
            raise ValueError(f"devices: {self.devices}; give 1 to 1024, or all")
        return self

    def relocated(self, absolute: Callable[[str], str]) -> Self:
        """Returns the settings with every path made absolute by `absolute`."""
        sets = self.limits.data_sets
        data_sets = sets and {
            run: [resolved_entry(entry, absolute) for entry in entries] for run, entries in sets.items()
        }
        update = {
            "data": [resolved_entry(entry, absolute) for entry in self.data],
            "state_dir": self.state_dir and absolute(self.state_dir),
            "cache_dir": self.cache_dir and absolute(self.cache_dir),
            "tokenizer": self.tokenizer and tokenizer_place(self.tokenizer, absolute),
            "limits": self.limits.model_copy(update={"data_sets": data_sets}),
        }
        return self.model_copy(update=update)

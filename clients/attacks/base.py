"""The registry of attacks: what a node does wrong on purpose, by name.

An attack is a decorated function in any file of this folder; the function's name is the attack's name:

    @update_attack("update", "sends its update backwards")
    def sign_flip(own: Blocks, seen: Seen) -> Blocks:
        return {block: -update for block, update in own.items()}

A recipe chooses it with `drill: {attack: sign_flip}`, `trfmoe drill` and `trfmoe bench witness` with
`--attacks sign_flip`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from flwr.app import Message

from trfmoe_core.blocks import Blocks
from trfmoe_core.config import DrillConfig, NodeSettings
from trfmoe_core.errors import ConfigError
from trfmoe_core.model.transformer import MoETransformer
from trfmoe_core.registry import Registry

Needs = Literal["update", "replicas", "model", "message", "training"]
"""What an attack works on.

- `update`: the node's own updates;
- `replicas`: also the honest updates of all other nodes in the same round. No real node sees those: this is the worst
  case, and only experiments in one process can play it;
- `model`: also the node's model at the start of the round, and batches of its text;
- `message`: the reply as a whole, or the moment at which it is sent;
- `training`: the training itself, so that the updates are not honest ones to begin with.
"""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A node's model with the weights that the round starts from, and what the node trains it on.

    Attributes:
        batches: Arguments of the model's forward pass: token ids [B, T], the next token of each, and perhaps more.
    """

    model: MoETransformer
    batches: Iterable[tuple[Any, ...]]
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What an attacker knows besides its own updates.

    Attributes:
        drill: The settings of the attack, such as `factor`.
        round: Number of the round.
        steps: Local steps of the round.
        generator: Random numbers that are the same whenever this node plays this round.
        first: Returns the node's own honest updates, each block as it was when the node first played the attack.
        honest: Updates of the honest nodes; empty unless the attack needs `replicas`.
        learner: None unless the attack needs `model`.
    """

    drill: DrillConfig
    round: int
    generator: torch.Generator
    steps: int = 0
    first: Callable[[], Blocks] = dict
    honest: Sequence[Blocks] = ()
    learner: Learner | None = None


UpdateAttack = Callable[[Blocks, Seen], Blocks]
"""(The node's honest updates, what else it knows) -> what it sends in their place."""

MessageAttack = Callable[[Callable[[], Message], Seen], Message]
"""(Answers honestly when called, what else the node knows) -> the reply; or raises as a crash does."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack of the registry.

    Attributes:
        about: What the node does, to be read after "it"; `{factor:g}` and `{delay_s:g}` stand for its settings.
        on_updates: The attack, if it works on updates; else `on_message` is.
    """

    name: str
    needs: Needs
    about: str
    on_updates: UpdateAttack | None = None
    on_message: MessageAttack | None = None

    @property
    def has_factor(self) -> bool:
        """True if `drill.factor` makes a difference."""
        return "{factor" in self.about


ATTACKS: Registry[Attack] = Registry("drill.attack", "clients.attacks")


def update_attack(needs: Literal["update", "replicas", "model"], about: str) -> Callable[[UpdateAttack], UpdateAttack]:
    """Returns a decorator that registers an attack on a node's updates under the function's name."""

    def register(play: UpdateAttack) -> UpdateAttack:
        name = getattr(play, "__name__", "")
        ATTACKS.register(name)(Attack(name=name, needs=needs, about=about, on_updates=play))
        return play

    return register


def message_attack(needs: Literal["message", "training"], about: str) -> Callable[[MessageAttack], MessageAttack]:
    """Returns a decorator that registers an attack on a node's answer under the function's name."""

    def register(play: MessageAttack) -> MessageAttack:
        name = getattr(play, "__name__", "")
        ATTACKS.register(name)(Attack(name=name, needs=needs, about=about, on_message=play))
        return play

    return register


def all_attacks() -> list[Attack]:
    """Returns every attack, by name."""
    return [ATTACKS.find(name) for name in ATTACKS.names()]


def find_attack(name: str, key: str = "drill.attack") -> Attack:
    """Returns the attack of this name.

    Args:
        name: Of the attack.
        key: The setting or option that names it, for the error.

    Raises:
        ConfigError: There is none of this name.
    """
    return ATTACKS.find(name, key)


def check_drill(node: NodeSettings, key: str = "drill") -> None:
    """Makes sure that a node can play what its settings tell it to.

    Args:
        node: The node's settings; without a drill they are right.
        key: Where the drill stands, for the error.

    Raises:
        ConfigError: There is no such attack, or a node alone cannot play it.
    """
    if node.drill is None:
        return
    attack = find_attack(node.drill.attack, f"{key}.attack")
    if attack.needs == "replicas":
        raise ConfigError(
            f"{key}.attack: {attack.name} needs the updates of all other nodes, which no node sees; "
            "choose another, or play it with trfmoe drill"
        )
    if attack.needs in ("training", "model") and node.devices not in (None, 1):
        raise ConfigError(
            f"{key}.attack: {attack.name} is played on one device, and devices is {node.devices}; set devices to 1"
        )


def describe(drill: DrillConfig) -> str:
    """Returns what a node does that plays this, to be read after "it"."""
    return find_attack(drill.attack).about.format(factor=drill.factor, delay_s=drill.delay_s)

"""The faults that experiments try: the attack that the faulty nodes play, and the promise that is checked."""

from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Literal

from clients.attacks.base import find_attack
from trfmoe_core.config import DrillConfig
from trfmoe_core.errors import ConfigError

Kind = Literal["clean", "silent", "plain", "adaptive"]
"""`silent` sends nothing that counts; `plain` sends something wrong; `adaptive` is built to pass the vote."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        name: In tables and for `--attacks`: the attack's, with its factor if it has one.
        kind: What the result is compared with and what is promised.
        drill: The attack and its settings.
        latency_s: How much later a faulty node answers, by the experiment's own clock; infinite for never.
        late: Whether the attack begins in the second half of the run only.
        everywhere: Whether the drill tries it with every number of nodes and every rule; else with three nodes and
            `majority` only, since a vote sees no difference to another fault.
    """

    name: str
    kind: Kind
    drill: DrillConfig | None = None
    latency_s: float = 0.0
    late: bool = False
    everywhere: bool = True

    def drill_in(self, num_rounds: int) -> DrillConfig | None:
        """Returns what a faulty node plays in a run of so many rounds."""
        if self.late and self.drill is not None:
            return self.drill.model_copy(update={"from_round": num_rounds // 2 + 1})
        return self.drill


def _played(attack: str, kind: Kind, *, everywhere: bool = True, **settings: float) -> Fault:
    name = attack + "".join(f"_x{factor:g}" for factor in settings.values())
    drill = DrillConfig.model_validate({"attack": attack, **settings})
    return Fault(name=name, kind=kind, drill=drill, everywhere=everywhere)


CLEAN = Fault(name="none", kind="clean")
ABSENT = _played("crash", "silent")
_RESTART = DrillConfig(attack="crash_after", from_round=2, to_round=2)
FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        CLEAN,
        ABSENT,
        _played("crash_during", "silent", everywhere=False),
        _played("crash_after", "silent", everywhere=False),
        Fault(name="restart", kind="plain", drill=_RESTART, everywhere=False),
        Fault(name="stall", kind="silent", latency_s=inf, everywhere=False),
        Fault(name="slow", kind="plain", latency_s=5.0, everywhere=False),
        _played("nan", "silent"),
        _played("inf", "silent", everywhere=False),
        _played("bit_flip", "silent", everywhere=False),
        _played("garbage", "silent", everywhere=False),
        _played("replay", "plain", everywhere=False),
        _played("stale", "plain"),
        _played("zero", "plain"),
        _played("sign_flip", "plain"),
        _played("scale", "plain", factor=100.0),
        _played("scale", "plain", factor=-10.0, everywhere=False),
        _played("gaussian", "plain", factor=1.0),
        _played("gaussian", "plain", factor=10.0, everywhere=False),
        _played("label_flip", "plain"),
        _played("token_lie", "plain", factor=1000.0),
        _played("inner_product", "adaptive"),
        _played("little_enough", "adaptive"),
        _played("stays_close", "adaptive"),
    )
}
"""The drill's faults, in the order of its table."""

LATE_SIGN_FLIP = Fault(name="late_sign_flip", kind="plain", drill=DrillConfig(attack="sign_flip"), late=True)


def find_fault(name: str) -> Fault:
    """Returns the fault of this name: one of the table, or any registered attack, such as `gaussian_x3`.

    Raises:
        ConfigError: There is no such attack, or its factor is missing, wrong or too much.
    """
    if name == LATE_SIGN_FLIP.name:
        return LATE_SIGN_FLIP
    if name in FAULTS:
        return FAULTS[name]
    attack_name, _, number = name.partition("_x")
    attack = find_attack(attack_name, "--attacks")
    kind: Kind = "adaptive" if attack.needs == "replicas" else "plain"
    if not number and not attack.has_factor:
        return _played(attack.name, kind)
    try:
        factor = float(number)
    except ValueError:
        factor = nan
    if not isfinite(factor) or not attack.has_factor:
        remedy = f"give its factor, such as {attack.name}_x-3" if attack.has_factor else "leave its factor out"
        raise ConfigError(f"--attacks: {name!r} cannot be played; {remedy}")
    return _played(attack.name, kind, factor=factor)

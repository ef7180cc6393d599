"""The placement from round to round: nodes join, faulty nodes sit out, and every change is recorded with its reason."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from strategies.membership.members import Member, RecordEvent
from strategies.membership.reputation import Reputation, Standing
from strategies.placement.changes import join, leave
from strategies.placement.layer_minimum import check_seats, with_floor
from strategies.placement.placement import REPLICATION, Placement, place
from trfmoe_core.config import ReputationConfig
from trfmoe_core.errors import PlacementError, RunError


class Seats:
    """The placement of a run over its rounds.

    Args:
        experts: The experts' block names.
        config: When a node sits out.
        record: Takes events.
        state: What `state` returned, to go on from there.
        layer_floor: Fewest experts of a layer that a node may hold.
        replication: Nodes that hold every expert; no node leaves when only so many are seated.
        trunk: Whether there is a trunk, which all nodes hold.
    """

    def __init__(
        self,
        experts: Sequence[str],
        config: ReputationConfig,
        record: RecordEvent,
        state: Mapping[str, Any] | None,
        layer_floor: int = 0,
        replication: int = REPLICATION,
        trunk: bool = True,
    ) -> None:
        self.experts, self.trunk = list(experts), trunk
        self.layer_floor, self.replication = layer_floor, replication
        self.record = record
        self.reputation = Reputation(config, state["reputation"] if state else None)
        self._placement: Placement | None = None
        self._unseated: set[str] = set()
        if state:
            holders = {block: tuple(names) for block, names in state["holders"].items()}
            nodes = tuple(state["nodes"])
            self._placement = Placement(
                epoch=state["epoch"], nodes=nodes, holders=holders, zones=state["zones"], replication=replication
            )

    @property
    def placement(self) -> Placement:
        """The placement now.

        Raises:
            RunError: before `open`.
        """
        if self._placement is None:
            raise RunError("the experts are not placed yet; call start")
        return self._placement

    def state(self) -> dict[str, Any]:
        """Returns everything that a resume needs, as plain values."""
        placement = self.placement
        return {
            "epoch": placement.epoch,
            "nodes": list(placement.nodes),
            "zones": placement.zones,
            "holders": {block: list(names) for block, names in placement.holders.items()},
            "reputation": self.reputation.state(),
        }

    def open(self, members: Mapping[str, Member]) -> None:
        """Places the experts on the members, or tells what a resumed run goes on with.

        Members without a seat are refused: registered members are seated first, then the others as they arrived.

        Args:
            members: By name, as they arrived.

        Raises:
            PlacementError: when too few members are seated to hold every expert.
        """
        if self._placement is None:
            seated = self._seated(members)
            zones = {name: members[name].description.zone for name in seated}
            first = place(self.experts, seated, zones=zones, replication=self.replication, trunk=self.trunk)
            self._change(first, "start")
        else:
            self._change(self._placement, "resumed")
            self._correct_zones(members)

    def update(self, round_number: int, online: Mapping[str, Member]) -> None:
        """Moves experts away from nodes that must sit out, and gives new and returning nodes their share."""
        self._correct_zones(online)
        placement = self.placement
        for name in self.reputation.to_leave(placement.nodes, self.replication):
            reason = self.reputation.reason(name)
            back = self.reputation.quarantine(name, round_number)
            self.record("node_quarantined", round=round_number, node=name, reason=reason, until_round=back)
            self._change(leave(self.placement, name), reason)
        for name in self.reputation.newly_suspect(self.placement.nodes):
            reason = f"{self.reputation.reason(name)} and keeps its seat: nobody else"
            self.record("node_suspect", round=round_number, node=name, reason=f"{reason} can take its experts")
        for name, reason in self.reputation.newly_suspect_of(self._num_blocks()).items():
            self.record("node_suspect", round=round_number, node=name, reason=reason)
        for name, member in online.items():
            if name not in self.placement.nodes and self.reputation.may_sit(name, round_number):
                self._join(name, member.description.zone)

    def observe(self, standings: Mapping[str, Standing], lost: Mapping[str, Collection[str]] | None = None) -> None:
        """Takes in what a round showed of the seated nodes, as `Reputation.observe` does."""
        self.reputation.observe(standings, lost)

    def _num_blocks(self) -> dict[str, int]:
        """Returns how many blocks each seated node holds."""
        return dict(Counter(name for holders in self.placement.holders.values() for name in holders))

    def _correct_zones(self, members: Mapping[str, Member]) -> None:
        """Gives seated nodes the zones that the operator has registered since, and moves what shares a zone then."""
        for name, member in members.items():
            placement, zone = self.placement, member.description.zone
            if not member.registered or name not in placement.nodes or placement.zones.get(name) == zone:
                continue
            others = {other: its for other, its in placement.zones.items() if other != name}
            corrected = replace(placement, zones=others if zone is None else {**others, name: zone})
            crowded = any(name in placement.holders[block] for block in corrected.zone_violations())
            if crowded and len(placement.nodes) > self.replication:
                corrected = join(leave(placement, name), name, zone)
            self._change(corrected, f"{name} is registered with {f'zone {zone}' if zone else 'no zone'}")

    def _seated(self, members: Mapping[str, Member]) -> list[str]:
        """Returns the members for which there is a seat, and refuses the others."""
        seated: list[str] = []
        for name in sorted(members, key=lambda name: not members[name].registered):
            try:
                check_seats(self.experts, self.replication, len(seated) + 1, self.layer_floor)
                seated.append(name)
            except PlacementError as error:
                self._without_seat(name, error)
        return seated

    def _join(self, name: str, zone: str | None) -> None:
        try:
            self._change(join(self.placement, name, zone), f"{name} joined")
        except PlacementError as error:
            self._without_seat(name, error)

    def _without_seat(self, name: str, error: PlacementError) -> None:
        if name not in self._unseated:
            self.record("node_refused", node=name, reason=f"there is no seat for it: {error}")
        self._unseated.add(name)

    def _change(self, placement: Placement, reason: str) -> None:
        placement = self._placement = with_floor(placement, self.layer_floor)
        loads = placement.loads()
        self.record(
            "placement",
            epoch=placement.epoch,
            reason=reason,
            load_min=min(loads.values()),
            load_max=max(loads.values()),
            replication=placement.replication,
            pair_max=placement.pair_max(),
            holders={block: list(names) for block, names in placement.holders.items()},
        )

"""Names and zones as the operator registered them: where there is a registration, a node's own word does not count.

The operator registers a node's key as `zone/name` or `name` (`flwr supernode register --name`). Nodes without a key
have no registration; their own word is taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from flwr.serverapp import Grid

from strategies.exchange.messages import Description


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A node's entry. `text` is what the operator gave; empty: none."""

    text: str = ""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.text.rpartition("/")[2]

    @property
    def zone(self) -> str | None:
        """The node's zone; None: the operator gave none, so it is one of its own."""
        return self.text.rpartition("/")[0] or None


class Registry:
    """The operator's registrations, as Flower tells them, and which names they are for.

    Args:
        names: What `names` said before a resume, so that a stranger does not take a name while its node is away.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = set(names)
        self._entries: dict[int, Registration] = {}

    @property
    def names(self) -> list[str]:
        """Names that belong to a key, sorted."""
        return sorted(self._names)

    def look_up(self, grid: Grid) -> None:
        """Reads the registrations of the nodes that are online."""
        self._entries = {node.node_id: Registration(text=getattr(node, "name", "") or "") for node in grid.get_nodes()}

    def of(self, node_id: int) -> Registration:
        """Returns a node's registration, without text when it has none."""
        return self._entries.get(node_id, Registration())

    def take(self, node_id: int) -> None:
        """Takes in that a registered node takes part: from now on its name is that of a key."""
        if self.of(node_id).text:
            self._names.add(self.of(node_id).name)

    def objection(self, node_id: int, name: str) -> str:
        """Returns why a node cannot be the one that it says it is, with the remedy; an empty text if it can."""
        told = self.of(node_id)
        if self._entries and node_id not in self._entries:
            return "Flower did not list it any more when it had answered; it is asked again"
        if told.text and told.name != name:
            return (
                f"its key is registered as {told.text!r}, and it calls itself {name!r}; one of the two must be changed"
            )
        if not told.text and name in self._names:
            return (
                f"the name {name!r} is registered for a key, and this node has none; register its key "
                "(flwr supernode register), or give the node another name"
            )
        return ""

    def described(self, node_id: int, description: Description) -> tuple[Description, str]:
        """Returns a node's description with the zone that is registered, and a warning when it claims another."""
        told = self.of(node_id)
        if not told.text or description.zone == told.zone:
            return description, ""
        registered = f"zone {told.zone}" if told.zone else "no zone, so it counts as one of its own"
        warning = (
            f"{description.name} says that its zone is {description.zone or 'none'}, and is registered with "
            f"{registered}; what is registered counts (register its key as ZONE/NAME, or mend zone in its settings)"
        )
        return description.model_copy(update={"zone": told.zone}), warning

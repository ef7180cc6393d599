"""The coordinator's remarks on a node's data. They are made from counts, since a node's own text may name its files."""

from strategies.exchange.messages import Description


def remarks(description: Description) -> list[str]:
    """Returns the remarks on a node's data."""
    found = []
    if description.duplicates:
        found.append(f"{description.duplicates} pieces that stood there before were left out")
    if description.sources > 1:
        found.append(f"{description.sources} sources share the training tokens")
    if description.num_notes:
        found.append(f"remarks in the node's log: {description.num_notes}")
    return found

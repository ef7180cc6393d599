"""The model of a run without what one node taught its experts, as far as kept models allow it.

An expert is free of a node in a round's model if the node's replica of it counted in no vote up to that round; the
journal says so. Its newest kept version of that kind takes its place. The trunk, in which every node has a part, stays.
"""

from collections import Counter
from dataclasses import dataclass

import torch

from server.run_folder.checkpoints import checkpoint_rounds
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory
from server.run_folder.journal import read_events
from server.run_folder.models import load_model
from trfmoe_core.blocks import TRUNK, BlockLayout
from trfmoe_core.counts import counted
from trfmoe_core.data.tokenizers import Tokenizer
from trfmoe_core.errors import ConfigError, RunFolderError
from trfmoe_core.model.transformer import MoETransformer


@dataclass(frozen=True)
class Departure:
    """What a model without a node consists of.

    Attributes:
        node: The node.
        round: The model from which everything else comes.
        versions: Expert -> the round whose version takes its place; only experts that the node has a part in.
        untouched: Experts that the node has no part in.
        trunk_rounds: Rounds in which the node's trunk counted.
    """

    node: str
    round: int
    versions: dict[str, int]
    untouched: list[str]
    trunk_rounds: int

    @property
    def told(self) -> list[str]:
        """What of the node is gone and what remains, in sentences."""
        rounds = Counter(self.versions.values())
        back = ", ".join(f"{number} to {_round(found)}" for found, number in sorted(rounds.items()))
        experts = len(self.versions) + len(self.untouched)
        lines = [
            f"{counted(len(self.versions), 'expert')} of {experts} had learnt from {self.node}"
            + (f" and went back to versions from before: {back}" if back else "")
        ]
        if self.trunk_rounds:
            lines.append(
                f"what remains of {self.node}: the trunk (attention, routers, embedding), in which its updates counted "
                f"in {counted(self.trunk_rounds, 'round')}, and what other nodes' experts learnt beside that trunk; "
                "what can be read out of these is not removed"
            )
        return lines


def plan_departure(folder: RunFolder, number: int, node: str) -> Departure:
    """Returns what the model after a round is without a node.

    Raises:
        ConfigError: The run has no such node, or is one of one machine.
        RunFolderError: An expert has learnt from the node, and no kept model is from before.
    """
    history = RunHistory(read_events(folder.events_path) if folder.events_path.exists() else ())
    if history.unit != "round":
        raise ConfigError(f"--without {node}: {folder.path} is a run of one machine, whose experts belong to nobody")
    if node not in history.nodes:
        raise ConfigError(f"--without {node}: the nodes of {folder.path} are {', '.join(sorted(history.nodes))}")
    first: dict[str, int] = {}
    trunk = 0
    for done in sorted(found for found in history.committed if found <= number):
        for verdict in history.verdicts.get(done, []):
            if node not in verdict.get("accepted", []):
                continue
            first.setdefault(verdict["block"], done)
            trunk += verdict["block"] == TRUNK
    imported = [0] if folder.imported_path.exists() else []
    kept = sorted({*imported, *checkpoint_rounds(folder.checkpoints_path)} & {0, *history.committed})
    experts = sorted(verdict["block"] for verdict in history.verdicts.get(number, []) if verdict["block"] != TRUNK)
    touched = {block: found for block, found in first.items() if block != TRUNK}
    versions = {block: max((one for one in kept if one < found), default=-1) for block, found in touched.items()}
    if lost := [block for block, found in versions.items() if found < 0]:
        earliest = min(touched[block] for block in lost)
        raise RunFolderError(
            f"--without {node}: {counted(len(lost), 'expert')} learnt from it from round {earliest} on, and no model "
            f"of an earlier round is kept (kept: {', '.join(map(str, kept)) or 'none'}); train again without {node}, "
            "and begin with an imported model, to which such experts can always go back"
        )
    return Departure(node, number, versions, [block for block in experts if block not in touched], trunk)


@torch.no_grad()
def model_without(folder: RunFolder, departure: Departure) -> tuple[MoETransformer, Tokenizer]:
    """Returns the model of a departure, and the run's tokenizer.

    Raises:
        RunFolderError: A checkpoint is missing, broken, or not what was committed.
    """
    model, tokenizer = load_model(folder, departure.round)
    parameters = dict(model.named_parameters())
    layout = BlockLayout.of(parameters)
    for number in sorted(set(departure.versions.values())):
        earlier = dict(load_model(folder, number)[0].named_parameters())
        names = {block for block, found in departure.versions.items() if found == number}
        layout.scatter(layout.gather(earlier, names), parameters)
    return model, tokenizer


def _round(number: int) -> str:
    return f"round {number}" if number else "the imported model"

"""How far the nodes on this machine are in the round, from the files that they keep in the run folder."""

from collections.abc import Mapping
from pathlib import Path

from clients.kept.progress import Progress, read_progress
from server.run_folder.folder import RunFolder
from server.run_folder.history import RunHistory


def nodes_progress(folder: RunFolder, history: RunHistory) -> Mapping[str, Progress]:
    """Returns node -> its progress in the newest round, of the nodes that keep their state on this machine.

    The nodes of a federation over several machines are not among them: nothing tells the coordinator of their steps.
    """
    run_id, number = str(history.started.get("run_id", "")), max(history.epochs, default=0)
    found = {}
    for node in folder.recipe.nodes if run_id else ():
        # The folder may have moved since the recipe was written; a state elsewhere has not.
        own = folder.path / "nodes" / node.name
        base = own if own.is_dir() or node.state_dir is None else Path(node.state_dir)
        progress = read_progress(base / run_id / node.name)
        if progress is not None and progress.round == number:
            found[node.name] = progress
    return found

"""Checks a run folder offline: the journal's chain, the recipe's hash, and the digests of the checkpoints."""

import hashlib
import json
from dataclasses import dataclass

from server.checkpoint import checkpoint_rounds
from server.events import GENESIS, Event
from server.recorder import checked_checkpoint
from server.run_folder import RunFolder
from trfmoe_core.config import recipe_hash
from trfmoe_core.errors import RunFolderError


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found. `problems` is empty when everything fits; the first is the first broken entry."""

    events: int
    checkpoints: list[int]
    problems: list[str]


def verify_run(folder: RunFolder) -> Verification:
    """Returns whether journal and checkpoints of a run are as they were written.

    The chain shows changed, removed and inserted entries; a cut at the end shows only by a missing `run_finished`.
    """
    events, problems = _check_chain(folder)
    committed = {event["round"]: event for event in events if event.get("event") == "round_committed"}
    for event in events:
        if event.get("event") == "run_started" and event.get("recipe_hash") != recipe_hash(folder.recipe):
            problems.append(f"recipe.yaml is not the recipe that entry {event['seq']} started with")
            break
    checked = []
    for number in checkpoint_rounds(folder.checkpoints_path):
        if number not in committed:
            problems.append(f"round {number} has a checkpoint and no round_committed entry")
            continue
        try:
            checked_checkpoint(folder, committed[number])
        except RunFolderError as error:
            problems.append(str(error))
            continue
        checked.append(number)
    return Verification(events=len(events), checkpoints=checked, problems=problems)


def _check_chain(folder: RunFolder) -> tuple[list[Event], list[str]]:
    try:
        lines = folder.events_path.read_bytes().splitlines()
    except OSError as error:
        return [], [f"{folder.events_path}: cannot be read ({error.strerror})"]
    events: list[Event] = []
    previous = GENESIS
    for number, line in enumerate(lines):
        try:
            event = json.loads(line)
        except ValueError:
            return events, [f"entry {number} is no JSON"]
        if not isinstance(event, dict) or event.get("seq") != number:
            return events, [f"entry {number} has the number {event.get('seq') if isinstance(event, dict) else None}"]
        if event.get("prev") != previous:
            return events, [f"entry {number} does not follow from the one before: either of the two was changed"]
        previous = hashlib.sha256(line).hexdigest()
        events.append(event)
    return events, []

"""Checks a run folder offline: the journal's chain, and that every file that it names exists and has its digest.

The chain detects changes before the last line. An edited last line, removed last lines or a journal that was rewritten
as a whole are detected only with something kept elsewhere: a noted head, or a signature.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from server.run_folder.checkpoints import checkpoint_rounds
from server.run_folder.evidence import JournalChain, check_heads, check_signatures
from server.run_folder.folder import RunFolder
from server.run_folder.journal import JournalReader
from server.run_folder.journal_entries import GENESIS, Event, plain
from server.run_folder.models import frozen_part, initial_model, run_tokenizer
from server.run_folder.noted_heads import NotedHead
from server.run_folder.provenance import file_digest, tokenizer_files
from server.run_folder.recorder import checked_checkpoint
from trfmoe_core.errors import RunFolderError, TRFMoEError
from trfmoe_core.model.transformer import frozen_shapes

_LOOKS = 3
"""Number of attempts. A running run may change between two reads, so a mismatch counts only if it stays."""


@dataclass(kw_only=True)
class Verification:
    """The result of a verification.

    Attributes:
        events: Entries in the chain.
        head: Hash of the last of them; zeros where there is none.
        finished: Whether a `run_finished` follows the last `run_started`.
        checkpoints: Rounds whose checkpoints are as committed.
        problems: What does not fit; the first is the first broken entry. Empty when everything fits.
        notes: What could not be checked, and what was found besides.
        signed: Number of entries that the owner of the given key has signed; None without a key.
        unsigned: Which entries the owner of the given key has not signed, with the remedy; empty if there are none.
    """

    events: int = 0
    head: str = GENESIS
    finished: bool = False
    checkpoints: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    signed: int | None = None
    unsigned: str = ""


def verify_run(
    folder: RunFolder,
    *,
    head: str | None = None,
    noted: Sequence[NotedHead] = (),
    key: Ed25519PublicKey | None = None,
) -> Verification:
    """Returns whether journal, checkpoints and other files of a run are as they were written.

    Args:
        folder: The run.
        head: A head of this journal that was noted earlier.
        noted: Heads that nodes noted.
        key: Public key whose signatures must fit.
    """
    for _ in range(_LOOKS):
        found, events, hashes = _look(folder)
        if not found.problems or _look_at_chain(folder)[2] == hashes:
            break
    if events:
        first = next(iter(_of_kind(events, "run_started")), {})
        chain = JournalChain(hashes=hashes, run_id=first.get("run_id"), recipe_hash=first.get("recipe_hash"))
        problems, notes = check_heads(chain, head, noted)
        signatures = check_signatures(folder.path, chain, key)
        found.problems += problems + signatures.problems
        found.notes += notes + signatures.notes
        found.signed, found.unsigned = signatures.signed, signatures.unsigned
    return found


def _look(folder: RunFolder) -> tuple[Verification, list[Event], list[str]]:
    """Checks what needs no knowledge from elsewhere; returns also the chain's events and their hashes."""
    events, broken, hashes = _look_at_chain(folder)
    found = Verification(events=len(events), head=hashes[-1] if hashes else GENESIS)
    found.problems += [broken] if broken else []
    if not events:
        found.problems = found.problems or [f"{folder.events_path}: holds no entry, so there is nothing to verify"]
        return found, events, hashes
    started, finished = _of_kind(events, "run_started"), _of_kind(events, "run_finished")
    found.finished = bool(finished) and (not started or finished[-1]["seq"] > started[-1]["seq"])
    if not broken and not folder.is_locked():
        _check_rest(found, folder)
    _check_starts(found, folder, started, _of_kind(events, "recipe_changed"))
    _check_rounds(found, folder, events)
    if found.finished:
        _check_end(found, finished[-1], _of_kind(events, "round_committed"))
    return found, events, hashes


def _look_at_chain(folder: RunFolder) -> tuple[list[Event], str, list[str]]:
    """Returns the events of the unbroken part, what breaks it, and the hash of every line."""
    events: list[Event] = []
    hashes: list[str] = []
    reader = JournalReader(folder.events_path, chained=True)
    try:
        for event in reader.read():
            events.append(event)
            hashes.append(reader.head.hash)
    except RunFolderError as error:
        return events, str(error).removeprefix(f"{folder.events_path}: "), hashes
    return events, "", hashes


def _check_rest(found: Verification, folder: RunFolder) -> None:
    """Checks the end: only a crash leaves an unfinished last line, so a finished run must not have one."""
    data = folder.events_path.read_bytes()
    if data.count(b"\n") == found.events and data.endswith(b"\n"):
        return
    text = f"entry {found.events} is cut short or no JSON"
    if found.finished:
        found.problems.append(f"{text}, and follows the end of the run")
    else:
        found.notes.append(f"{text}: a crash leaves that, and going on removes it")


def _check_recipe(found: Verification, folder: RunFolder, started: list[Event], changed: list[Event]) -> None:
    """The recipe stays the same, but for changes that the journal names. A crash may come before such a change."""
    known = [started[0].get("recipe_hash")]
    last = started[0]
    for event in sorted([*started[1:], *changed], key=lambda event: int(event["seq"])):
        if event["event"] == "recipe_changed":
            known.append(event.get("recipe_hash"))
        elif event.get("recipe_hash") not in known:
            found.problems.append(f"entry {event['seq']} started with another recipe than the entries before")
            return
        else:
            known, last = [event.get("recipe_hash")], event
    if folder.recipe_digest() not in known:
        found.problems.append(f"recipe.yaml is not the recipe that entry {last['seq']} started with")


def _check_starts(found: Verification, folder: RunFolder, started: list[Event], changed: list[Event]) -> None:
    if not started:
        found.notes.append("the run has not begun: the journal has no run_started entry")
        return
    _check_recipe(found, folder, started, changed)
    if len({str(event.get("run_id")) for event in started}) > 1:
        found.problems.append("the run_started entries are of different runs")
    last = started[-1]
    for name, label, digest in (
        ("tokenizer_fingerprint", "tokenizer", _tokenizer_digest),
        ("tokenizer_files", "tokenizer's files", _tokenizer_files),
        ("imported_weights", "imported.safetensors", _imported_digest),
        ("frozen_digest", "weights that are never trained", _frozen_digest),
        ("witness_salt", "witness.salt", _salt_digest),
    ):
        if name not in last:
            found.notes.append(f"{label}: not checked, the run's release did not record a digest")
            continue
        if any(event[name] != last[name] for event in started if name in event):
            found.problems.append(f"{label}: the run_started entries name different digests")
        try:
            fits = digest(folder, last[name]) == last[name]
        except (TRFMoEError, OSError, ValueError) as error:
            found.problems.append(f"{label}: {error}")
            continue
        if not fits:
            found.problems.append(f"{label}: is not what entry {last['seq']} started with")


def _check_rounds(found: Verification, folder: RunFolder, events: list[Event]) -> None:
    committed: dict[int, Event] = {}
    commits = _of_kind(events, "round_committed")
    for event in commits:
        number = event.get("round")
        if not isinstance(number, int) or not isinstance(event.get("digest"), str):
            found.problems.append(f"entry {event['seq']} commits no round")
            continue
        if number <= max(committed, default=0):
            found.problems.append(f"entry {event['seq']} commits round {number} after round {max(committed)}")
        committed[number] = event
    last = max(committed, default=0)
    # A run that failed between a round's checkpoint and its entry, as on a full disk, has the checkpoint alone.
    completed = found.finished and _of_kind(events, "run_finished")[-1].get("outcome") == "completed"
    there = checkpoint_rounds(folder.checkpoints_path)
    for number in there:
        if number in committed:
            _check_checkpoint(found, folder, committed[number])
        elif number > last and not completed and number == max(there) and sum(n > last for n in there) == 1:
            found.notes.append(f"round {number} has a checkpoint and no round_committed entry yet: it did not end")
        else:
            found.problems.append(f"round {number} has a checkpoint and no round_committed entry")
    if not committed:
        return
    if not any(event["event"] == "run_started" for event in events):
        found.problems.append("the journal commits rounds and has no run_started entry")
    kept = commits[-1].get("kept")
    if isinstance(kept, list):
        missing = [number for number in kept if number not in there]
    else:
        found.notes.append(
            "which checkpoints are kept was not recorded by the run's release: only the last is required"
        )
        missing = [number for number in [last] if number not in there]
    found.problems += [
        f"round {number} has no checkpoint, and entry {commits[-1]['seq']} keeps it" for number in missing
    ]


def _check_checkpoint(found: Verification, folder: RunFolder, committed: Event) -> None:
    number = committed["round"]
    try:
        state = checked_checkpoint(folder, committed).state
    except TRFMoEError as error:
        found.problems.append(str(error))
        return
    summary = plain(state.get("summary") or {})
    changed = [name for name, value in summary.items() if committed.get(name) != value]
    if changed or state.get("digest") != committed["digest"]:
        what = ", ".join(changed) or "digest"
        found.problems.append(f"entry {committed['seq']} and the checkpoint of round {number} differ in {what}")
        return
    found.checkpoints.append(number)


def _check_end(found: Verification, finished: Event, commits: list[Event]) -> None:
    if finished.get("outcome") != "completed":
        return
    last = commits[-1] if commits else {}
    for name, value in (("rounds", last.get("round")), ("digest", last.get("digest"))):
        if last and finished.get(name) != value:
            found.problems.append(f"entry {finished['seq']} ends the run with another {name} than was committed last")


def _of_kind(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def _tokenizer_digest(folder: RunFolder, recorded: object) -> str | None:
    if not folder.tokenizer_path.is_dir():
        raise RunFolderError("the run's own copy is missing")
    return run_tokenizer(folder).fingerprint


def _tokenizer_files(folder: RunFolder, recorded: object) -> dict[str, str]:
    return tokenizer_files(folder)


def _imported_digest(folder: RunFolder, recorded: object) -> str | None:
    if not folder.imported_path.exists():
        if recorded is not None:
            raise RunFolderError("is missing")
        return None
    return file_digest(folder.imported_path)


def _frozen_digest(folder: RunFolder, recorded: object) -> str | None:
    recipe = folder.recipe
    if not frozen_shapes(recipe.model, 1, recipe.training.freeze):
        return None
    part = frozen_part(initial_model(folder, run_tokenizer(folder)))
    return part.digest if part else None


def _salt_digest(folder: RunFolder, recorded: object) -> str | None:
    witness = folder.recipe.witness
    if witness is None:
        return None
    salt = witness.salt
    if not salt:
        path = folder.path / "witness.salt"
        if not path.is_file():
            raise RunFolderError("is missing")
        salt = path.read_text(encoding="ascii").strip()
    return hashlib.sha256(salt.encode()).hexdigest()

"""Compares a journal's chain with evidence that its writer cannot change: heads noted by nodes, and signatures."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from server.run_folder.journal_entries import GENESIS
from server.run_folder.noted_heads import NotedHead
from server.run_folder.signatures import key_text, read_signatures
from trfmoe_core.counts import counted
from trfmoe_core.errors import RunFolderError


@dataclass(frozen=True, kw_only=True)
class JournalChain:
    """An unbroken chain: the hash of every line, and what the first `run_started` says of the run."""

    hashes: list[str]
    run_id: object = None
    recipe_hash: object = None

    def has(self, entries: int, head: str) -> bool:
        """Returns True if the chain's entry number `entries` has this hash."""
        if entries == 0:
            return head == GENESIS
        return 0 < entries <= len(self.hashes) and self.hashes[entries - 1] == head

    def after(self, entries: int) -> str:
        """Returns in words how many entries follow after the first `entries`."""
        count = len(self.hashes) - entries
        return counted(count, "entry follows", "entries follow") if count else "nothing follows"


def check_heads(chain: JournalChain, head: str | None, noted: Sequence[NotedHead]) -> tuple[list[str], list[str]]:
    """Returns problems and notes about a head that somebody noted and about the heads that nodes noted."""
    problems: list[str] = []
    notes: list[str] = []
    hashes = chain.hashes
    if head is not None:
        if head not in hashes:
            problems.append(f"--head {head[:16]}...: no entry has this hash: rewritten, edited or cut since")
        else:
            notes.append(f"--head: is entry {hashes.index(head)}; {chain.after(hashes.index(head) + 1)}")
    for source in dict.fromkeys(note.source for note in noted):
        ours = [note for note in noted if note.source == source and note.run_id == chain.run_id]
        wrong = [note for note in ours if not chain.has(note.entries, note.head)]
        if wrong:
            first = wrong[0]
            problems.append(
                f"{source}: {len(wrong)} of {len(ours)} noted heads are not in this journal, the first in round "
                f"{first.round} after {first.entries} entries: rewritten, or cut since"
            )
        elif ours:
            last = max(ours, key=lambda note: note.entries)
            notes.append(f"{source}: {len(ours)} noted heads fit; {chain.after(last.entries)}")
        else:
            problems.append(f"{source}: notes no head of this run ({chain.run_id}), so nothing was compared")
    return problems, notes


def check_signatures(folder: Path, chain: JournalChain, key: Ed25519PublicKey | None) -> tuple[list[str], list[str]]:
    """Returns what does not fit, and notes, of the signatures in a run folder; without a key they are counted."""
    problems: list[str] = []
    notes: list[str] = []
    try:
        signatures = read_signatures(folder)
    except RunFolderError as error:
        (notes if key is None else problems).append(str(error))
        return problems, notes
    if key is None:
        if signatures:
            notes.append(
                f"{counted(len(signatures), 'signature is', 'signatures are')} there and not checked; give --key PUBLIC"
            )
        return problems, notes
    mine = [signature for signature in signatures if signature.public_key == key_text(key)]
    if not mine:
        problems.append(
            f"none of {counted(len(signatures), 'signature')} is by this key"
            if signatures
            else "the journal is not signed"
        )
        return problems, notes
    for signature in mine:
        said = signature.statement
        if not signature.verifies(key):
            problems.append(f"the signature at entry {said.entries} is broken: it or what it says was changed")
        elif (said.run_id, said.recipe_hash) != (chain.run_id, chain.recipe_hash):
            problems.append(f"the signature at entry {said.entries} is of another run ({said.run_id!r:.40})")
        elif not chain.has(said.entries, said.head):
            problems.append(
                f"the journal that was signed at entry {said.entries} is not this one: rewritten, or cut since"
            )
    last = max(mine, key=lambda signature: signature.statement.entries).statement
    when = datetime.fromtimestamp(last.time, UTC).isoformat(timespec="seconds") if 0 <= last.time < 1e11 else "?"
    if not problems:
        notes.append(f"signed at entry {last.entries} on {when}; {chain.after(last.entries)}")
    others = len(signatures) - len(mine)
    if others:
        notes.append(f"{others} signatures are by other keys and were not checked")
    return problems, notes

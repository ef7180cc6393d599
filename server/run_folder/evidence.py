"""Compares a journal's chain with evidence that its writer cannot change: heads noted by nodes, and signatures."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
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

    def unsigned(self, entries: int) -> str:
        """Returns in words which entries lie behind the first `entries`; an empty text if there are none."""
        last = len(self.hashes) - 1
        if entries > last:
            return ""
        return f"entry {last}" if entries == last else f"entries {entries} to {last}"

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


@dataclass(kw_only=True)
class SignatureCheck:
    """What the signatures of a run folder show.

    Attributes:
        signed: Number of entries, from the first on, that the key's owner has signed; None if no key was given.
        unsigned: Which entries the key's owner has not signed, with the remedy; empty if there are none.
        problems: What does not fit.
        notes: What was found besides.
    """

    signed: int | None = None
    unsigned: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_signatures(folder: Path, chain: JournalChain, key: Ed25519PublicKey | None) -> SignatureCheck:
    """Compares the signatures in a run folder with its journal; without a key they are only counted.

    Args:
        folder: The run folder.
        chain: Its journal.
        key: Public key whose signatures count.
    """
    found = SignatureCheck()
    try:
        signatures = read_signatures(folder)
    except RunFolderError as error:
        (found.notes if key is None else found.problems).append(str(error))
        return found
    if key is None:
        if signatures:
            found.notes.append(
                f"{counted(len(signatures), 'signature is', 'signatures are')} there and not checked; give --key PUBLIC"
            )
        return found
    mine = [signature for signature in signatures if signature.public_key == key_text(key)]
    for signature in mine:
        said = signature.statement
        if not signature.verifies(key):
            found.problems.append(f"the signature at entry {said.entries} is broken: it or what it says was changed")
        elif (said.run_id, said.recipe_hash) != (chain.run_id, chain.recipe_hash):
            found.problems.append(f"the signature at entry {said.entries} is of another run ({said.run_id!r:.40})")
        elif not chain.has(said.entries, said.head):
            found.problems.append(
                f"the journal that was signed at entry {said.entries} is not this one: rewritten, or cut since"
            )
    others = len(signatures) - len(mine)
    if others:
        found.notes.append(f"{counted(others, 'signature is', 'signatures are')} by other keys and not checked")
    if found.problems:
        return found
    last = max((signature.statement for signature in mine), key=lambda said: said.entries, default=None)
    found.signed = last.entries if last else 0
    if last:
        when = datetime.fromtimestamp(last.time, UTC).isoformat(timespec="seconds") if 0 <= last.time < 1e11 else "?"
        found.notes.append(f"entries 0 to {last.entries - 1} were signed by this key on {when}")
    if behind := chain.unsigned(found.signed):
        verb = "are" if " to " in behind else "is"
        whole = f"{behind}, the newest, {verb} not" if last else f"none of its {len(chain.hashes)} entries is"
        found.unsigned = (
            f"{whole} signed by this key, so a change there would not be seen; whoever has the private key signs: "
            f"trfmoe sign {shlex.quote(str(folder))} --key sign.key"
        )
    return found

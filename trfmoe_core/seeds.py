"""Seeds that depend on names, not on the order in which things start."""

import hashlib


def seed_for(seed: int, *names: str) -> int:
    """Returns a seed below 2**63 that is the same for the same seed and names everywhere."""
    text = "\0".join([str(seed), *names])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

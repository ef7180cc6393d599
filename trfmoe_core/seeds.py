"""Seeds that depend on names, not on the order of calls."""

import hashlib


def seed_for(seed: int, *names: str) -> int:
    """Returns a seed below 2**63 that depends only on `seed` and the names, on every machine."""
    text = "\0".join([str(seed), *names])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

"""Common English words, from the documentation that comes with Python."""

import re
from collections import Counter
from functools import lru_cache

# Not names in programs, which stand in quotes, with dots or with underscores.
_WORD = re.compile(r"(?<![\w`'.*/-])[a-z]{2,}(?![\w`*/-])")


@lru_cache(1)
def common_words() -> frozenset[str]:
    """Returns about two thousand words in lower case."""
    from pydoc_data.topics import topics

    counts = Counter(word for topic in topics.values() for word in _WORD.findall(topic))
    return frozenset({word for word, count in counts.items() if count > 1} | {"a"})

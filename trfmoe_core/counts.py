"""Numbers of things in messages."""


def counted(number: int, thing: str, things: str | None = None) -> str:
    """Returns, for instance, `1 file` or `1,200 files`.

    Args:
        number: How many.
        thing: What one of them is called.
        things: What several are called; None: `thing` with an s.
    """
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"

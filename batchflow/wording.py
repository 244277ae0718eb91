"""Words that go with a number or a name."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return how many of something there are.

    >>> counted(1, "chunk"), counted(2000, "retry")
    ('1 chunk', '2,000 retries')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def one(noun: str) -> str:
    """Return a noun with its article.

    >>> one("int"), one("Table")
    ('an int', 'a Table')
    """
    return f"an {noun}" if noun[:1].lower() in "aeio" else f"a {noun}"

"""The api's bearer tokens as an operator writes them: ``name:token`` or ``token``, separated by commas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

SHORTEST = 8
"""A token of fewer characters is refused."""


@dataclass(frozen=True, slots=True)
class Token:
    """A caller and the digest of its token. A token without a name is named by its digest."""

    caller: str
    digest: bytes = field(repr=False)


def digest_of(token: bytes) -> bytes:
    """What tokens are compared by: digests have one length, so a comparison reveals nothing about a token's length."""
    return hashlib.sha256(token).digest()


def read_tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a list. Raises ValueError, which does not repeat them."""
    tokens: list[Token] = []
    for position, name, secret in _entries(text):
        if name is not None and not name.replace("-", "_").replace(".", "_").isidentifier():
            raise ValueError(f"entry {position}: expected name:token, with a name of letters, digits, - _ and .")
        if len(secret) < SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ValueError(f"entry {position}: a token needs at least {SHORTEST} printable characters, no spaces")
        digest = digest_of(secret.encode())
        # A given name holds no colon, so a derived one never equals it.
        tokens.append(Token(name or f"token:{digest.hex()[:16]}", digest))
    named = [each.caller for each in tokens]
    if len(set(named)) != len(named) or len({each.digest for each in tokens}) != len(tokens):
        raise ValueError("a name or a token occurs twice")
    return tuple(tokens)


def first_token(text: str) -> str | None:
    """The first token of a list, to log in with; None for an empty list."""
    return next((secret for _, _, secret in _entries(text)), None)


def _entries(text: str) -> Iterator[tuple[int, str | None, str]]:
    for position, each in enumerate((part.strip() for part in text.split(",")), start=1):
        if each:
            name, colon, secret = each.partition(":")
            yield (position, name, secret) if colon else (position, None, each)

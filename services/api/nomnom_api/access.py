"""Authentication by bearer token, if any are set. Compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from nomnom_api.errors import UnauthorizedError

ANONYMOUS = "anonymous"
_MIN_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Token:
    """A caller and the digest of its token. The caller of an unnamed token is named after the digest."""

    caller: str
    digest: bytes = field(repr=False)


def read_tokens(text: str) -> tuple[Token, ...]:
    """Parse ``name:token,token,…``; raises ValueError with a text that does not contain tokens."""
    tokens: list[Token] = []
    for position, each in enumerate((part.strip() for part in text.split(",")), start=1):
        if not each:
            continue
        name, colon, secret = each.partition(":")
        if not colon:
            name, secret = "", each
        elif not name.isidentifier() and not name.replace("-", "_").replace(".", "_").isidentifier():
            raise ValueError(f"entry {position}: expected name:token with a name of letters, digits, - _ and .")
        if len(secret) < _MIN_LENGTH or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ValueError(
                f"entry {position}: expected a token of {_MIN_LENGTH} or more printable ASCII characters, no spaces"
            )
        digest = _digest(secret.encode())
        # Given names contain no colon, so derived names cannot collide with them.
        tokens.append(Token(name or f"token:{digest.hex()[:16]}", digest))
    named = [each.caller for each in tokens]
    if len(set(named)) != len(named) or len({each.digest for each in tokens}) != len(tokens):
        raise ValueError("duplicate name or token")
    return tuple(tokens)


class Access:
    """Checks Authorization headers."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tuple(tokens)
        self.required = bool(tokens)
        """Whether a token is required."""

    def caller(self, header: bytes | None) -> str:
        """The caller with this header; raises UnauthorizedError unless the token is valid."""
        if not self._tokens:
            return ANONYMOUS
        if header is None:
            raise UnauthorizedError("missing token: send Authorization: Bearer <token>", b'Bearer realm="nomnom"')
        scheme, _, presented = header.partition(b" ")
        digest = _digest(presented.strip() if scheme.lower() == b"bearer" else b"")
        matching = [each.caller for each in self._tokens if hmac.compare_digest(digest, each.digest)]
        if not matching:
            raise UnauthorizedError("invalid token", b'Bearer realm="nomnom", error="invalid_token"')
        return matching[0]


def _digest(token: bytes) -> bytes:
    # Digests all have the same length, so comparing them does not reveal the length of a token.
    return hashlib.sha256(token).digest()

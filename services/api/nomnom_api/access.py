"""Who may post: bearer tokens, where any are set. Compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from nomnom_api.errors import UnauthorizedError

ANONYMOUS = "anonymous"
_SHORTEST = 8


@dataclass(frozen=True, slots=True)
class Token:
    """A caller and the digest of its token. A token without a name is named by its digest."""

    caller: str
    digest: bytes = field(repr=False)


def read_tokens(text: str) -> tuple[Token, ...]:
    """The tokens of ``name:token,token,…``; raises ValueError, which does not repeat them."""
    tokens: list[Token] = []
    for position, each in enumerate((part.strip() for part in text.split(",")), start=1):
        if not each:
            continue
        name, colon, secret = each.partition(":")
        if not colon:
            name, secret = "", each
        elif not name.isidentifier() and not name.replace("-", "_").replace(".", "_").isidentifier():
            raise ValueError(f"entry {position}: expected name:token, with a name of letters, digits, - _ and .")
        if len(secret) < _SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ValueError(f"entry {position}: a token has at least {_SHORTEST} printable characters, no blanks")
        digest = _digest(secret.encode())
        # A colon keeps what is derived apart from what is given.
        tokens.append(Token(name or f"token:{digest.hex()[:16]}", digest))
    named = [each.caller for each in tokens]
    if len(set(named)) != len(named) or len({each.digest for each in tokens}) != len(tokens):
        raise ValueError("a name or a token is there twice")
    return tuple(tokens)


class Access:
    """The check of an Authorization header."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tuple(tokens)
        self.required = bool(tokens)
        """Whether a token is needed at all."""

    def caller(self, header: bytes | None) -> str:
        """Who presents this header; raises UnauthorizedError where nobody known does."""
        if not self._tokens:
            return ANONYMOUS
        if header is None:
            raise UnauthorizedError("a token is needed: Authorization: Bearer <token>", b'Bearer realm="nomnom"')
        scheme, _, presented = header.partition(b" ")
        digest = _digest(presented.strip() if scheme.lower() == b"bearer" else b"")
        matching = [each.caller for each in self._tokens if hmac.compare_digest(digest, each.digest)]
        if not matching:
            raise UnauthorizedError(
                "the token is not one of those that are set", b'Bearer realm="nomnom", error="invalid_token"'
            )
        return matching[0]


def _digest(token: bytes) -> bytes:
    # Digests have one length: comparing them tells nothing of a token's.
    return hashlib.sha256(token).digest()

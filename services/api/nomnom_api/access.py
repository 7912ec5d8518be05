"""Who may post: bearer tokens, where any are set. Compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from nomnom.settings.tokens import Token, digest_of
from nomnom_api.errors import UnauthorizedError

ANONYMOUS = "anonymous"


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
        digest = digest_of(presented.strip() if scheme.lower() == b"bearer" else b"")
        matching = [each.caller for each in self._tokens if hmac.compare_digest(digest, each.digest)]
        if not matching:
            raise UnauthorizedError(
                "the token is not one of those that are set", b'Bearer realm="nomnom", error="invalid_token"'
            )
        return matching[0]

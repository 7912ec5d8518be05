"""Authentication by bearer token, if any are set. Compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from nomnom.settings.tokens import Token, digest_of
from nomnom_api.errors import UnauthorizedError

ANONYMOUS = "anonymous"


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
        digest = digest_of(presented.strip() if scheme.lower() == b"bearer" else b"")
        matching = [each.caller for each in self._tokens if hmac.compare_digest(digest, each.digest)]
        if not matching:
            raise UnauthorizedError("invalid token", b'Bearer realm="nomnom", error="invalid_token"')
        return matching[0]

"""Authentication by bearer token or by user and password, if any are set. Compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from nomnom_dashboard.errors import UnauthorizedError


class Access:
    """Checks Authorization headers."""

    def __init__(self, tokens: Sequence[str], credentials: tuple[str, str] | None) -> None:
        # Digests all have the same length, so comparing them does not reveal the length of a secret.
        self._secrets = [_digest(f"bearer {each}") for each in tokens]
        if credentials is not None:
            self._secrets.append(_digest(f"basic {credentials[0]}:{credentials[1]}"))
        offers = (["Bearer"] if tokens else []) + (['Basic realm="nomnom", charset="UTF-8"'] if credentials else [])
        self.challenge = ", ".join(offers).encode()

    @property
    def open(self) -> bool:
        """Whether no authentication is required."""
        return not self._secrets

    def check(self, header: bytes | None) -> None:
        """Raise UnauthorizedError unless the header holds one of the secrets."""
        if self.open:
            return
        if header is None:
            raise UnauthorizedError(
                "send a token as Authorization: Bearer …"
                if b"Bearer" in self.challenge
                else "send user and password with HTTP basic authentication"
            )
        scheme, _, given = header.decode("latin-1").partition(" ")
        presented = given.strip()
        if scheme.lower() == "basic":
            try:
                presented = base64.b64decode(presented, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError, ValueError):
                presented = ""
        digest = _digest(f"{scheme.lower()} {presented}")
        matches = [hmac.compare_digest(digest, each) for each in self._secrets]
        if not any(matches):
            raise UnauthorizedError("invalid token or password")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

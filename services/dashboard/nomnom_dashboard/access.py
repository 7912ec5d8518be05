"""Who may ask: bearer tokens, or a user and a password, where any are set. Compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from nomnom_dashboard.errors import UnauthorizedError


class Access:
    """The check of an Authorization header."""

    def __init__(self, tokens: Sequence[str], credentials: tuple[str, str] | None) -> None:
        # Digests have one length: comparing them tells nothing of a secret's.
        self._secrets = [_digest(f"bearer {each}") for each in tokens]
        if credentials is not None:
            self._secrets.append(_digest(f"basic {credentials[0]}:{credentials[1]}"))
        offers = (["Bearer"] if tokens else []) + (['Basic realm="nomnom", charset="UTF-8"'] if credentials else [])
        self.challenge = ", ".join(offers).encode()

    @property
    def open(self) -> bool:
        """Whether nothing is asked for."""
        return not self._secrets

    def check(self, header: bytes | None) -> None:
        """Raises UnauthorizedError where the header does not hold one of the secrets."""
        if self.open:
            return
        if header is None:
            raise UnauthorizedError(
                "a token is needed: Authorization: Bearer …" if b"Bearer" in self.challenge else "log in"
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
            raise UnauthorizedError("the token or password is not one of those that are set")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

"""The account: what became of every message, exactly, from what is stored.

Each sequence that JetStream assigned in ``MESSAGES`` is in the stream, is the position of a row of ``message_status``,
or has a row in ``nomnom_sequences`` that says which message it is a copy of. Any other is lost, and called unexplained.
So is a dead letter that is missing although the status of its message is ``dlq``.

:class:`Verifier` looks for them and keeps the numbers of blocks of sequences; the housekeeper calls it every few
seconds. :func:`read_account` sums these up.

The account begins when ``nomnom setup`` of this version has run: messages that were accepted before have no position.
"""

from __future__ import annotations

from nomnom.account.reading import Account, Balance, Kind, Unexplained, named, read_account, read_balance
from nomnom.account.verification import CONFIRMATION, Verification, Verifier, begin

__all__ = [
    "CONFIRMATION",
    "Account",
    "Balance",
    "Kind",
    "Unexplained",
    "Verification",
    "Verifier",
    "begin",
    "named",
    "read_account",
    "read_balance",
]

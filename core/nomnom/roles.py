"""The roles that components log in with: made by ``nomnom setup``, each with no more than what it does needs.

A role is told by the URL that its component connects with: its user and password become the role's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from nomnom.database import LOCK
from nomnom.errors import NomnomError
from nomnom.schema import Schema
from nomnom.settings.setup import read_login
from nomnom.tables import Table, quote

_ITERATIONS = 4096
_EXISTS = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
_MADE = "SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)"
_RENEWED = "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)"
_WHERE = "SELECT current_database() AS database, current_schema() AS schema, current_user AS owner"
_READ, _WRITE = "SELECT", "SELECT, INSERT, UPDATE"
_STATISTICS = "pg_read_all_stats"


class RoleError(NomnomError):
    """A role that cannot be made, or cannot be given what it needs."""


@dataclass(frozen=True, slots=True)
class Role:
    """A component's login. ``component`` is worker, api, dashboard or operator."""

    component: str
    name: str
    password: str

    @classmethod
    def from_url(cls, component: str, url: str) -> Role:
        """The role that this URL logs in as. Raises RoleError if it has no user or no password."""
        try:
            return cls(component, *read_login(url))
        except ValueError as error:
            raise RoleError(f"the {component}'s database URL: {error}") from None


async def ensure_roles(connection: asyncpg.Connection, schema: Schema, roles: Sequence[Role]) -> list[str]:
    """Make or renew these roles and give each what its component needs, and nothing else; returns what was done.

    The tables have to be there. Raises RoleError; nothing is changed then.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        here = await connection.fetchrow(_WHERE)
        assert here is not None
        return [await _ensure(connection, schema, each, here) for each in roles if each.name != here["owner"]]


async def _ensure(connection: asyncpg.Connection, schema: Schema, role: Role, here: asyncpg.Record) -> str:
    exists = await connection.fetchval(_EXISTS, role.name)
    name, namespace = quote(role.name), quote(here["schema"])
    try:
        # Made of a verifier, the statement may be logged: it does not hold the password.
        statement = await connection.fetchval(_RENEWED if exists else _MADE, role.name, _verifier(role.password))
        await connection.execute(str(statement))
        await connection.execute(f"GRANT CONNECT ON DATABASE {quote(here['database'])} TO {name}")
        await connection.execute(f"GRANT USAGE ON SCHEMA {namespace} TO {name}")
        await connection.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA {namespace} FROM {name}")
        for rights, tables in _rights(role.component, schema):
            await connection.execute(f"GRANT {rights} ON {', '.join(tables)} TO {name}")
    except asyncpg.PostgresError as error:
        raise RoleError(
            f"role {role.name} of the {role.component}: {error}; set up with a user that may create roles, or make the "
            f"role by hand and set up without its URL"
        ) from error
    done = f"role {role.name}: {'up to date' if exists else 'created'}"
    if role.component in ("dashboard", "operator"):
        done += await _show_statistics(connection, name)
    return done


async def _show_statistics(connection: asyncpg.Connection, name: str) -> str:
    """Let a role see other roles' sessions: workers are counted by theirs."""
    try:
        async with connection.transaction():
            await connection.execute(f"GRANT {_STATISTICS} TO {name}")
    except asyncpg.InsufficientPrivilegeError:
        return f" (without {_STATISTICS}, which this user may not give: it cannot count workers by their sessions)"
    return ""


def _rights(component: str, schema: Schema) -> Iterable[tuple[str, Sequence[str]]]:
    entities = [Table(entity).name for entity in schema]
    match component:
        case "worker":
            return ((_WRITE, [*entities, "message_status"]),)
        case "api":
            return ((_READ, ["message_status"]),)
        case "dashboard":
            return ((_READ, [*entities, "message_status", "nomnom_audit"]),)
        case "operator":
            # A dry run on the database writes rows, and takes them back.
            written = (_WRITE, [*entities, "message_status"])
            return (written, ("SELECT, INSERT", ["nomnom_audit"]), (_READ, ["nomnom_migrations"]))
        case _:
            raise RoleError(f"no component is called {component!r}")


def _verifier(password: str) -> str:
    """SCRAM-SHA-256's verifier as PostgreSQL keeps it (RFC 5803): libpq has a function for it, asyncpg has none."""
    salt = secrets.token_bytes(16)
    text = unicodedata.normalize("NFKC", password).encode()
    salted = hashlib.pbkdf2_hmac("sha256", text, salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256${_ITERATIONS}:{salt64}${stored64}:{server64}"

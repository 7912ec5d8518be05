"""The PostgreSQL roles of the components, created by ``nomnom setup`` with the privileges each one needs.

User and password of a role are those in the URL that its component connects with.
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
_CREATE = "SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)"
_ALTER = "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)"
_WHERE = "SELECT current_database() AS database, current_schema() AS schema, current_user AS owner"
_READ, _WRITE = "SELECT", "SELECT, INSERT, UPDATE"
_ACCOUNT = ("nomnom_account", "nomnom_account_blocks", "nomnom_account_retired", "nomnom_unexplained")
_STATISTICS = "pg_read_all_stats"


class RoleError(NomnomError):
    """A role that cannot be created or granted its privileges."""


@dataclass(frozen=True, slots=True)
class Role:
    """The login role of a component: worker, api, dashboard, operator or housekeeper."""

    component: str
    name: str
    password: str

    @classmethod
    def from_url(cls, component: str, url: str) -> Role:
        """The role that this URL logs in as. Raises RoleError if it has no user or no password."""
        try:
            return cls(component, *read_login(url))
        except ValueError as error:
            raise RoleError(f"the {component}'s database URL {error}") from None


async def ensure_roles(connection: asyncpg.Connection, schema: Schema, roles: Sequence[Role]) -> list[str]:
    """Create or update roles and grant the privileges of their components; returns what was done.

    The tables must exist. Raises RoleError, and then nothing is changed.
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
        # The statement may be logged, so it contains a verifier instead of the password.
        statement = await connection.fetchval(_ALTER if exists else _CREATE, role.name, _verifier(role.password))
        await connection.execute(str(statement))
        await connection.execute(f"GRANT CONNECT ON DATABASE {quote(here['database'])} TO {name}")
        await connection.execute(f"GRANT USAGE ON SCHEMA {namespace} TO {name}")
        await connection.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA {namespace} FROM {name}")
        for privileges, tables in _privileges(role.component, schema):
            await connection.execute(f"GRANT {privileges} ON {', '.join(tables)} TO {name}")
    except asyncpg.PostgresError as error:
        raise RoleError(
            f"role {role.name} of the {role.component}: {error}; run setup as a user with CREATEROLE, or create the "
            f"role manually and run setup without its URL"
        ) from error
    done = f"role {role.name}: {'up to date' if exists else 'created'}"
    if role.component in ("dashboard", "operator"):
        done += await _show_statistics(connection, name)
    return done


async def _show_statistics(connection: asyncpg.Connection, name: str) -> str:
    """Grant access to the sessions of other roles, which are used to count workers."""
    try:
        async with connection.transaction():
            await connection.execute(f"GRANT {_STATISTICS} TO {name}")
    except asyncpg.InsufficientPrivilegeError:
        return f" (without {_STATISTICS}, which this user cannot grant: connected workers cannot be counted)"
    return ""


def _privileges(component: str, schema: Schema) -> Iterable[tuple[str, Sequence[str]]]:
    entities = [Table(entity).name for entity in schema]
    match component:
        case "worker":
            copies = ["nomnom_keys", "nomnom_sequences", "nomnom_streams"]
            return ((_WRITE, [*entities, "message_status", *copies]),)
        case "api":
            return ((_READ, ["message_status", "nomnom_keys"]),)
        case "dashboard":
            copies = ["nomnom_keys", "nomnom_sequences", "nomnom_streams"]
            own = ["message_status", "nomnom_audit", "nomnom_archive"]
            return ((_READ, [*entities, *own, *copies, *_ACCOUNT]),)
        case "housekeeper":
            return (
                (_WRITE, ["message_status", "nomnom_sequences", "nomnom_streams"]),
                ("SELECT, INSERT", ["nomnom_archive", "nomnom_audit"]),
                ("SELECT, INSERT, UPDATE, DELETE", ["nomnom_keys", "nomnom_expiring", "nomnom_steps", *_ACCOUNT]),
                ("USAGE", ["SEQUENCE nomnom_audit_id"]),
                ("EXECUTE", ["FUNCTION nomnom_add_partition", "nomnom_drop_partition", "nomnom_prune_sequences"]),
            )
        case "operator":
            # A dry run writes rows and rolls back.
            written = (_WRITE, [*entities, "message_status", "nomnom_sequences", "nomnom_streams"])
            return (
                written,
                ("SELECT, INSERT", ["nomnom_audit", "nomnom_keys"]),
                ("SELECT, INSERT, UPDATE, DELETE", _ACCOUNT),
                ("USAGE", ["SEQUENCE nomnom_audit_id"]),
                (_READ, ["nomnom_migrations", "nomnom_archive", "nomnom_steps"]),
            )
        case _:
            raise RoleError(f"unknown component {component!r}")


def _verifier(password: str) -> str:
    """The SCRAM-SHA-256 verifier in PostgreSQL's format (RFC 5803); asyncpg has no function for it."""
    salt = secrets.token_bytes(16)
    text = unicodedata.normalize("NFKC", password).encode()
    salted = hashlib.pbkdf2_hmac("sha256", text, salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256${_ITERATIONS}:{salt64}${stored64}:{server64}"

"""The roles that setup creates: each has the privileges of its component and no others."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import asyncpg
import pytest

from conftest import Deployment
from nomnom.roles import Role, RoleError
from nomnom.setup import set_up

COPIES = {"nomnom_keys", "nomnom_sequences", "nomnom_streams"}
ACCOUNT = {"nomnom_account", "nomnom_account_blocks", "nomnom_account_retired", "nomnom_unexplained"}
OWN = {"message_status", "nomnom_audit", "nomnom_archive", "nomnom_expiring", "nomnom_migrations", "nomnom_steps"}
TABLES = {"orders", *OWN, *COPIES, *ACCOUNT}
READABLE = {
    "worker": {"orders", "message_status", *COPIES},
    "api": {"message_status", "nomnom_keys"},
    "dashboard": {"orders", "message_status", "nomnom_audit", "nomnom_archive", *COPIES, *ACCOUNT},
    "operator": TABLES - {"nomnom_expiring"},
    "housekeeper": TABLES - {"orders", "nomnom_migrations"},
}
UPDATABLE = {
    "worker": READABLE["worker"],
    "operator": {"orders", "message_status", "nomnom_sequences", "nomnom_streams", *ACCOUNT},
    "housekeeper": READABLE["housekeeper"] - {"nomnom_audit", "nomnom_archive"},
}
ADDED = {"operator": {"nomnom_audit", "nomnom_keys"}, "housekeeper": {"nomnom_audit", "nomnom_archive"}}

DELETABLE = {"operator": ACCOUNT, "housekeeper": {"nomnom_keys", "nomnom_expiring", "nomnom_steps", *ACCOUNT}}


def url_of(deployment: Deployment, role: str, password: str) -> str:
    parts = urlsplit(deployment.settings.database_url)
    return parts._replace(netloc=f"{role}:{password}@{parts.hostname}:{parts.port}").geturl()


def roles(deployment: Deployment, password: str = "s3cret-Ä") -> list[Role]:
    database = urlsplit(deployment.settings.database_url).path.lstrip("/")
    return [Role(each, f"{database}_{each}", password) for each in READABLE]


async def allowed(connection: asyncpg.Connection, role: str, privilege: str) -> set[str]:
    return {
        table
        for table in TABLES
        if await connection.fetchval("SELECT has_table_privilege($1, $2::text, $3)", role, table, privilege)
    }


async def test_roles_have_exactly_their_privileges(deployment: Deployment) -> None:
    created = roles(deployment)
    done = await set_up(deployment.settings, wait=5, roles=created)
    assert [f"role {each.name}: created" in done for each in created] == [True] * 5
    again = await set_up(deployment.settings, wait=5, roles=created)
    assert [f"role {each.name}: up to date" in again for each in created] == [True] * 5
    for role in created:
        assert await allowed(deployment.database, role.name, "SELECT") == READABLE[role.component]
        writes = UPDATABLE.get(role.component, set())
        assert await allowed(deployment.database, role.name, "UPDATE") == writes
        added = ADDED.get(role.component, set())
        assert await allowed(deployment.database, role.name, "INSERT") == writes | added
        assert await allowed(deployment.database, role.name, "DELETE") == DELETABLE.get(role.component, set())
    own = await deployment.database.fetch(
        "SELECT relname FROM pg_class"
        " WHERE relkind IN ('r', 'p') AND NOT relispartition AND relname ~ '^(nomnom|message)_'"
    )
    assert {row[0] for row in own} | {"orders"} == TABLES


async def test_role_logs_in_with_the_password_of_its_url(deployment: Deployment) -> None:
    (role, *_) = roles(deployment)
    await set_up(deployment.settings, wait=5, roles=[role])
    await (await asyncpg.connect(url_of(deployment, role.name, quote(role.password)))).close()
    await set_up(deployment.settings, wait=5, roles=[Role(role.component, role.name, "another")])
    await (await asyncpg.connect(url_of(deployment, role.name, "another"))).close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url_of(deployment, role.name, quote(role.password)))


async def test_error_without_the_privilege_to_create_roles(deployment: Deployment) -> None:
    owner, other = roles(deployment)[:2]
    await set_up(deployment.settings, wait=5, roles=[owner])
    await deployment.database.execute(f'GRANT SELECT, INSERT ON nomnom_migrations TO "{owner.name}"')
    weak = await asyncpg.connect(url_of(deployment, owner.name, quote(owner.password)))
    try:
        from nomnom.roles import ensure_roles
        from nomnom.schema import load_schema

        with pytest.raises(RoleError, match=f"role {other.name} of the api: permission denied"):
            await ensure_roles(weak, load_schema("tpch"), [other])
    finally:
        await weak.close()


def test_url_without_user_or_password_is_rejected() -> None:
    for url in ("postgresql://host/db", "postgresql://user@host/db"):
        with pytest.raises(RoleError, match="the worker's database URL needs a user and a password"):
            Role.from_url("worker", url)
    role = Role.from_url("worker", "postgresql://us%40er:p%2Fw@host/db")
    assert (role.name, role.password) == ("us@er", "p/w")

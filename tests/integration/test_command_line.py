"""The command line on a running pipeline: text output, JSON, exit codes."""

from __future__ import annotations

import asyncio
import json
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from program_harness import Program, started, until

from conftest import LINE, ORDER
from nomnom_cli.exit_codes import Exit

BAD = ORDER.replace("2024-01-01", "2024-02-30")


def order(key: int) -> str:
    return ORDER.replace("O|123|", f"O|{key}|")


@pytest.fixture(scope="module")
def nomnom() -> Iterator[Program]:
    with started("commands", "--min", "1", "--max", "2") as program:
        yield program


def completed(nomnom: Program, count: int, entity: str = "O") -> None:
    rows = {each["tag"]: each["rows"] for each in nomnom.read("entities")}
    until(lambda: rows[entity] >= count or _rows(nomnom, entity) >= count)


def _rows(nomnom: Program, entity: str) -> int:
    return next(each["rows"] for each in nomnom.read("entities") if each["tag"] == entity)


def dead_letters(nomnom: Program, count: int) -> list[dict[str, Any]]:
    until(lambda: len(nomnom.read("dlq", "ls", "--limit", "1000")) == count)
    return nomnom.read("dlq", "ls", "--limit", "1000")


def test_post_message_and_read_rows(nomnom: Program) -> None:
    posted = nomnom.read("post", f"{order(9001)}\n{LINE}")
    assert posted["status"] == "accepted"
    assert "completed" in nomnom("message", posted["message_id"], "--follow", "--timeout", "30")
    state = nomnom.read("message", posted["message_id"])
    assert (state["status"], state["entity"]) == ("completed", "orders")
    [newest] = nomnom.read("messages", "--limit", "1", "--status", "completed")
    assert newest["message_id"] == posted["message_id"]
    [row] = [each for each in nomnom.read("rows", "O")["rows"] if each["o_orderkey"] == 9001]
    assert row["message_id"] == posted["message_id"]
    assert "9001" in nomnom("rows", "orders")
    repeated = [nomnom.read("post", order(9002), "--key", "once-only")["message_id"] for _ in range(2)]
    assert repeated[0] == repeated[1]
    assert "unknown entity 'nothing'" in nomnom("rows", "nothing", code=Exit.FAILED)
    assert "is not a valid message ID" in nomnom("message", "x", code=Exit.FAILED)
    assert "unknown status" in nomnom("messages", "--status", "lost", code=Exit.USAGE)


def test_account_of_all_messages(nomnom: Program) -> None:
    nomnom("post", order(9010), "--wait")
    account = nomnom.read("account", "--verify")
    fates = ("completed", "dead_letters", "pending", "processing", "failed", "deleted", "purged", "expired", "retired")
    assert account["accepted"] == sum(account[each] for each in fates)
    assert (account["unexplained"], account["losses"]) == (0, [])
    text = nomnom("account", "--since", "1d")
    assert "accepted" in text
    assert "unexplained" in text
    assert "unexplained" in nomnom("status")
    assert "is not a valid time" in nomnom("account", "--since", "yesterday", code=Exit.USAGE)


def test_account_that_cannot_be_determined(tmp_path: Path) -> None:
    assert "not running" in Program(tmp_path)("account", code=Exit.NOT_RUNNING)


def test_account_names_a_lost_message(nomnom: Program) -> None:
    nomnom("consumer", "pause")
    posted = nomnom.read("post", order(9011))
    sequence = nomnom.read("stream", "messages")["messages"][-1]["sequence"]
    ports = json.loads((nomnom.folder / "state.json").read_text())["ports"]

    async def remove() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{ports['nats']}")
        await client.jetstream().delete_msg("MESSAGES", sequence)
        await client.close()

    asyncio.run(remove())
    nomnom("consumer", "resume")
    account = nomnom.read("account", code=Exit.FAILED)
    assert [each["first_sequence"] for each in account["losses"]] == [sequence]
    assert f"sequence {sequence}" in nomnom("account", code=Exit.FAILED)
    assert posted["status"] == "accepted"


def test_next_page(nomnom: Program) -> None:
    for key in (9003, 9004):
        nomnom("post", order(key), "--wait")
    first = nomnom.read("rows", "O", "--limit", "1")
    second = nomnom.read("rows", "O", "--limit", "1", "--after", first["next"])
    assert first["rows"][0]["o_orderkey"] < second["rows"][0]["o_orderkey"]
    [newest] = nomnom.read("messages", "--limit", "1")
    [older] = nomnom.read("messages", "--limit", "1", "--after", newest["message_id"])
    assert older["received_at"] < newest["received_at"]


def test_stream_messages_are_read_without_consuming_them(nomnom: Program) -> None:
    nomnom("consumer", "pause")
    assert nomnom.read("consumer", "info")["paused"]
    posted = nomnom.read("post", order(9004))
    found = nomnom.read("stream", "messages")["messages"]
    assert [each["payload"] for each in found] == [order(9004)]
    peeked = nomnom.read("stream", "peek", str(found[0]["sequence"]))
    assert peeked["subject"].endswith(posted["message_id"])
    assert order(9004) in nomnom("stream", "peek", str(found[0]["sequence"]))
    assert "is resumed" in nomnom("consumer", "resume")
    assert "completed" in nomnom("message", posted["message_id"], "--follow")
    assert "has no message with sequence" in nomnom("stream", "peek", str(found[0]["sequence"]), code=Exit.FAILED)
    assert "not confirmed" in nomnom("stream", "purge", "MESSAGES", code=Exit.REFUSED, given="")


def test_edited_dead_letter_is_replayed_and_audited(nomnom: Program, tmp_path: Path) -> None:
    nomnom("post", BAD.replace("O|123|", "O|9100|"))
    [dead_letter] = dead_letters(nomnom, 1)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/2024-02-30/2024-02-29/ "$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    nomnom.environment["EDITOR"] = str(editor)
    sequence = str(dead_letter["sequence"])
    output = nomnom("dlq", "replay", sequence, "--edit", "--yes")
    assert "'2024-02-30' → '2024-02-29'" in output
    assert "1 replayed" in output
    assert "completed" in nomnom("message", dead_letter["message_id"], "--follow", "--timeout", "30")
    [entry] = nomnom.read("dlq", "audit", "--message", dead_letter["message_id"])
    assert (entry["action"], entry["result"]) == ("replay", "replayed")
    assert "replay" in nomnom("dlq", "audit")
    nomnom.environment["EDITOR"] = "false"
    nomnom("post", BAD.replace("O|123|", "O|9101|"))
    [other] = dead_letters(nomnom, 1)
    assert "nothing was changed" in nomnom("dlq", "replay", "--seq", str(other["sequence"]), "--edit", code=1)


def test_replay_undo_and_delete_matching_dead_letters(nomnom: Program) -> None:
    for key in range(9200, 9203):
        nomnom("post", BAD.replace("O|123|", f"O|{key}|"))
    dead_letters(nomnom, 4)
    assert "not confirmed" in nomnom("dlq", "replay", "entity:orders", code=Exit.REFUSED, given="")
    assert "pass either sequences or a filter" in nomnom("dlq", "replay", "1", "entity:orders", code=Exit.USAGE)
    newest = nomnom.read("dlq", "ls", "entity:orders", "reason:record", "--limit", "1")[0]["sequence"]
    assert [each["sequence"] for each in nomnom.read("dlq", "dry-run", str(newest))] == [newest]
    forecast = nomnom.read("dlq", "dry-run", "--grep", "o_orderdate", "--set", "o_orderdate=2024-02-29")
    assert {each["outcome"] for each in forecast} == {"completes"}
    nomnom("consumer", "pause")
    run = nomnom.read("dlq", "replay", "--grep", "o_orderdate", "--yes")
    assert run["counts"]["replayed"] == 4
    assert {each["result"] for each in nomnom.read("dlq", "undo", "--run", run["run"])} == {"undone"}
    nomnom("consumer", "resume")
    dead_letters(nomnom, 4)
    assert "select dead letters" in nomnom("dlq", "delete", code=Exit.USAGE)
    assert nomnom.read("dlq", "delete", "--all", "--yes")["deleted"] == 4
    assert nomnom("dlq", "ls").strip() == "no dead letters"
    assert "expected" in nomnom("dlq", "ls", "since:yesterdayish", code=Exit.USAGE)


def test_filter_logs(nomnom: Program) -> None:
    lines = [json.loads(each) for each in nomnom("logs", "api", "--json", "--grep", "listening").splitlines()]
    assert lines
    assert {(each["component"], each["text"]) for each in lines} == {("api", "listening")}
    assert "unknown component" in nomnom("logs", "kafka", code=Exit.FAILED)
    assert "unknown level" in nomnom("logs", "--level", "loud", code=Exit.USAGE)
    assert "--grep" in nomnom("logs", "--grep", "(", code=Exit.USAGE)


def test_demo_sends_records(nomnom: Program) -> None:
    counts = nomnom.read("demo", "--seconds", "4", "--rate", "60", "--broken", "0.3")
    assert counts["accepted"] > 50
    assert 0 < counts["broken"] < counts["accepted"]
    dead_letters(nomnom, counts["broken"])
    groups = nomnom.read("dlq", "groups")
    assert len(groups) > 1
    assert sum(each["count"] for each in groups) == counts["broken"]
    until(lambda: nomnom.read("status")["lag"] == 0)
    nomnom("dlq", "delete", "--all", "--yes")


def test_faulty_line_of_a_message_is_shown(nomnom: Program) -> None:
    nomnom("post", f"{order(9400)}\n{LINE}\n{LINE.replace('2024-01-02', '2024-01-32')}")
    [dead_letter] = dead_letters(nomnom, 1)
    shown = nomnom("dlq", "show", str(dead_letter["sequence"]))
    assert f"line 2 is valid: {LINE}" in shown
    assert "2024-01-32  expected a date as YYYY-MM-DD" in shown
    nomnom("dlq", "delete", str(dead_letter["sequence"]), "--yes")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid(nomnom: Program, shell: str) -> None:
    script = nomnom("completion", shell)
    assert "dlq" in script
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True, timeout=30)


def test_usage(nomnom: Program) -> None:
    assert "Exit codes" in nomnom("--help")
    assert "Unknown command" in nomnom("frobnicate", code=Exit.USAGE)
    assert "Unknown option" in nomnom("status", "--frobnicate", code=Exit.USAGE)
    assert "lineitem" in nomnom("schema", "show", "tpch")
    assert {each["name"] for each in nomnom.read("schema", "ls")} == {"tpch", "ecommerce"}
    assert "l_shipdate" in nomnom("schema", "show", "tpch", "OLI")
    assert nomnom.read("schema", "check", "tpch")["tags"] == ["R", "N", "S", "C", "P", "PS", "O", "OLI"]


def test_pipeline_with_another_schema(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="nomnom-shop-"))
    folder.chmod(0o755)
    shop = Program(folder / "instance")
    file = tmp_path / "shop.yaml"
    file.write_text((Path(__file__).parents[2] / "schemas" / "ecommerce.yaml").read_text())
    try:
        output = shop("up", "--detach", "--check", "--schema", str(file))
        assert "-d 'CU|" in output
        assert "● completed" in output
        assert "the demo sends TPC-H records" in shop("demo", code=Exit.FAILED)
    finally:
        shop("destroy", "--yes")
        shutil.rmtree(folder)


def test_unexpected_error_is_one_line_and_a_report(nomnom: Program, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import nomnom_cli.command_line as c, nomnom_cli.application as p;"
         "p.app.command(lambda: 1 // 0, name='defect'); c.main(['defect'])"],
        env={**nomnom.environment, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == Exit.FAILED
    [line] = done.stderr.splitlines()
    assert line.startswith("nomnom: unexpected ZeroDivisionError")
    assert "Traceback" in Path(line.rpartition(" ")[2]).read_text()

"""The command line on a running pipeline: what people see, what programs read, exit codes."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_local_pipeline import Program, until

from conftest import LINE, ORDER
from nomnom_control.command_line.exits import Exit

BAD = ORDER.replace("2024-01-01", "2024-02-30")


def order(key: int) -> str:
    return ORDER.replace("O|123|", f"O|{key}|")


@pytest.fixture(scope="module")
def nomnom() -> Iterator[Program]:
    folder = Path(tempfile.mkdtemp(prefix="nomnom-commands-"))
    folder.chmod(0o755)
    program = Program(folder / "instance")
    program("up", "--detach", "--min", "1", "--max", "2")
    yield program
    program("destroy", "--yes")
    shutil.rmtree(folder)


def completed(nomnom: Program, count: int, entity: str = "O") -> None:
    rows = {each["tag"]: each["rows"] for each in nomnom.read("entities")}
    until(lambda: rows[entity] >= count or _rows(nomnom, entity) >= count)


def _rows(nomnom: Program, entity: str) -> int:
    return next(each["rows"] for each in nomnom.read("entities") if each["tag"] == entity)


def letters(nomnom: Program, count: int) -> list[dict[str, Any]]:
    until(lambda: len(nomnom.read("dlq", "ls", "--limit", "1000")) == count)
    return nomnom.read("dlq", "ls", "--limit", "1000")


def test_messages_and_rows(nomnom: Program) -> None:
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
    assert "no entity" in nomnom("rows", "nothing", code=Exit.FAILED)
    assert "is no message id" in nomnom("message", "x", code=Exit.FAILED)
    assert "no status" in nomnom("messages", "--status", "lost", code=Exit.USAGE)


def test_pages_follow_one_another(nomnom: Program) -> None:
    nomnom("post", order(9003), "--wait")
    first = nomnom.read("rows", "O", "--limit", "1")
    second = nomnom.read("rows", "O", "--limit", "1", "--after", first["next"])
    assert first["rows"][0]["o_orderkey"] < second["rows"][0]["o_orderkey"]
    [newest] = nomnom.read("messages", "--limit", "1")
    [older] = nomnom.read("messages", "--limit", "1", "--after", newest["message_id"])
    assert older["received_at"] < newest["received_at"]


def test_what_lies_in_the_stream_is_seen_without_taking_it(nomnom: Program) -> None:
    nomnom("consumer", "pause")
    assert nomnom.read("consumer", "info")["paused"]
    posted = nomnom.read("post", order(9004))
    found = nomnom.read("stream", "messages")["messages"]
    assert [each["payload"] for each in found] == [order(9004)]
    peeked = nomnom.read("stream", "peek", str(found[0]["sequence"]))
    assert peeked["headers"]["Nats-Msg-Id"] == posted["message_id"]
    assert order(9004) in nomnom("stream", "peek", str(found[0]["sequence"]))
    assert "delivers" in nomnom("consumer", "resume")
    assert "completed" in nomnom("message", posted["message_id"], "--follow")
    assert "no message" in nomnom("stream", "peek", str(found[0]["sequence"]), code=Exit.FAILED)
    assert "not confirmed" in nomnom("stream", "purge", "MESSAGES", code=Exit.REFUSED, given="")


def test_a_letter_is_edited_replayed_and_in_the_audit(nomnom: Program, tmp_path: Path) -> None:
    nomnom("post", BAD.replace("O|123|", "O|9100|"))
    [letter] = letters(nomnom, 1)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/2024-02-30/2024-02-29/ "$1"\n')
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    nomnom.environment["EDITOR"] = str(editor)
    sequence = str(letter["sequence"])
    output = nomnom("dlq", "replay", "--seq", sequence, "--edit", "--yes")
    assert "'2024-02-30' → '2024-02-29'" in output
    assert "1 replayed" in output
    assert "completed" in nomnom("message", letter["message_id"], "--follow", "--timeout", "30")
    [entry] = nomnom.read("dlq", "audit", "--message", letter["message_id"])
    assert (entry["action"], entry["result"]) == ("replay", "replayed")
    assert "replay" in nomnom("dlq", "audit")
    nomnom.environment["EDITOR"] = "false"
    nomnom("post", BAD.replace("O|123|", "O|9101|"))
    [other] = letters(nomnom, 1)
    assert "nothing was replayed" in nomnom("dlq", "replay", "--seq", str(other["sequence"]), "--edit", code=1)


def test_letters_that_match_are_replayed_taken_back_and_deleted(nomnom: Program) -> None:
    for key in range(9200, 9203):
        nomnom("post", BAD.replace("O|123|", f"O|{key}|"))
    letters(nomnom, 4)
    assert "not confirmed" in nomnom("dlq", "replay", "entity:orders", code=Exit.REFUSED, given="")
    forecast = nomnom.read("dlq", "dry-run", "--grep", "o_orderdate", "--set", "o_orderdate=2024-02-29")
    assert {each["outcome"] for each in forecast} == {"completes"}
    nomnom("consumer", "pause")
    run = nomnom.read("dlq", "replay", "--grep", "o_orderdate", "--yes")
    assert run["counts"]["replayed"] == 4
    assert {each["result"] for each in nomnom.read("dlq", "undo", "--run", run["run"])} == {"undone"}
    nomnom("consumer", "resume")
    letters(nomnom, 4)
    assert "name the letters" in nomnom("dlq", "delete", code=Exit.USAGE)
    assert nomnom.read("dlq", "delete", "--all", "--yes")["deleted"] == 4
    assert nomnom("dlq", "ls").strip() == "no dead letters"
    assert "expected" in nomnom("dlq", "ls", "since:yesterdayish", code=Exit.USAGE)


def test_logs_are_filtered(nomnom: Program) -> None:
    lines = [json.loads(each) for each in nomnom("logs", "api", "--json", "--grep", "listening").splitlines()]
    assert lines
    assert {(each["component"], each["text"]) for each in lines} == {("api", "listening")}
    assert "no component" in nomnom("logs", "kafka", code=Exit.FAILED)
    assert "no level" in nomnom("logs", "--level", "loud", code=Exit.USAGE)
    assert "--grep" in nomnom("logs", "--grep", "(", code=Exit.USAGE)


def test_a_demo_flows(nomnom: Program) -> None:
    counts = nomnom.read("demo", "--seconds", "4", "--rate", "60", "--broken", "0.3")
    assert counts["accepted"] > 50
    assert 0 < counts["broken"] < counts["accepted"]
    letters(nomnom, counts["broken"])
    groups = nomnom.read("dlq", "groups")
    assert len(groups) > 1
    assert sum(each["count"] for each in groups) == counts["broken"]
    until(lambda: nomnom.read("status")["lag"] == 0)
    nomnom("dlq", "delete", "--all", "--yes")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(nomnom: Program, shell: str) -> None:
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


def test_a_defect_is_one_line_and_a_file(nomnom: Program, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import nomnom_control.command_line as c, nomnom_control.command_line.program as p;"
         "p.app.command(lambda: 1 // 0, name='defect'); c.main(['defect'])"],
        env={**nomnom.environment, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == Exit.FAILED
    [line] = done.stderr.splitlines()
    assert line.startswith("nomnom: unexpected ZeroDivisionError")
    assert "Traceback" in Path(line.rpartition(" ")[2]).read_text()


class TestIngestion:
    def test_rejected_lines_are_told_and_kept(self, nomnom: Program, tmp_path: Path) -> None:
        file, rejects = tmp_path / "mixed", tmp_path / "rejects"
        long = order(9300).replace("comment", "x" * 1_100_000)
        file.write_text("\n".join([order(9301), "", long, order(9302)]))
        sent = nomnom.read("ingest", str(file), "--rejects", str(rejects), code=Exit.PARTLY)
        assert (sent["accepted"], sent["refused"], sent["lines"]) == (2, 1, 4)
        assert (sent["refusals"][0]["line"], sent["refusals"][0]["last_line"]) == (3, 3)
        assert rejects.read_text() == f"{long}\n"

    def test_packed_files_and_standard_input(self, nomnom: Program, tmp_path: Path) -> None:
        file = tmp_path / "orders.gz"
        with gzip.open(file, "wt") as packed:
            packed.write(f"{order(9310)}\n{order(9311)}\n")
        assert nomnom.read("ingest", str(file))["accepted"] == 2
        assert "2 accepted" in nomnom("ingest", "-", given=f"{order(9312)}\n{order(9313)}\n")
        assert nomnom.read("ingest", "-", given="\n\n")["accepted"] == 0
        (tmp_path / "broken.gz").write_bytes(file.read_bytes()[:-12])
        assert "cannot be read" in nomnom("ingest", str(tmp_path / "broken.gz"), code=Exit.FAILED)

    def test_killed_in_the_middle_it_goes_on(self, nomnom: Program, tmp_path: Path) -> None:
        """Killed between two chunks or in one: each line is one message in the end."""
        file, count = tmp_path / "big.tbl", 120_000
        with file.open("w") as target:
            target.writelines(f"{order(key).removeprefix('O|')}|\n" for key in range(100_000, 100_000 + count))
        before = nomnom.read("stream", "info")["state"]["last_seq"]
        for _ in range(2):
            running = subprocess.Popen(
                [sys.executable, "-m", "nomnom_tui.program", "ingest", str(file), "--entity", "O"],
                env=nomnom.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            mark = nomnom.folder / "ingestion"
            seen = _offsets(mark)
            deadline = time.monotonic() + 30
            while _offsets(mark) == seen and running.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            running.send_signal(signal.SIGKILL)
            assert running.wait(10) == -signal.SIGKILL
        last = nomnom.read("ingest", str(file), "--entity", "O")
        assert last["resumed"]
        assert last["lines"] == count
        # Repeated chunks are the same messages: JetStream keeps each once.
        assert nomnom.read("stream", "info")["state"]["last_seq"] == before + count
        until(lambda: nomnom.read("status")["lag"] == 0, 90)
        until(lambda: _rows(nomnom, "O") >= count * 0.9)
        assert "sent already" in nomnom("ingest", str(file), "--entity", "O")

    def test_an_api_restarted_in_the_middle(self, nomnom: Program, tmp_path: Path) -> None:
        file, count = tmp_path / "restarted", 60_000
        file.write_text("\n".join(order(key) for key in range(300_000, 300_000 + count)))
        before = nomnom.read("stream", "info")["state"]["last_seq"]
        running = subprocess.Popen(
            [sys.executable, "-m", "nomnom_tui.program", "ingest", str(file), "--json"],
            env=nomnom.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(1.0)
        [api] = [each for each in nomnom.processes() if "nomnom_api" in each.cmdline()]
        os.kill(api.pid, signal.SIGKILL)
        output, problems = running.communicate(timeout=90)
        assert running.returncode == 0, problems
        assert json.loads(output)["accepted"] == count
        assert nomnom.read("stream", "info")["state"]["last_seq"] == before + count
        until(lambda: nomnom.read("status")["lag"] == 0, 90)


def _offsets(journal: Path) -> set[str]:
    return {each.read_text() for each in journal.glob("*.json")}

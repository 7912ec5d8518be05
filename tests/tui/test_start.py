"""Starting the program in a terminal: the environment that was named is the one that opens."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nomnom_control.environments.cluster.configuration import use_environment

_KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: far, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: me, user: {token: none}}]
contexts:
- {name: kind-demo, context: {cluster: far, user: me}}
- {name: far, context: {cluster: far, user: me}}
"""


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (("--env", "kind:demo"), {}, "kind:demo"),
        (("--env", "kube:far"), {}, "kube:far"),
        ((), {"NOMNOM_ENV": "kind:demo"}, "kind:demo"),
        ((), {"saved": "kube:far"}, "kube:far"),
        ((), {}, "local"),
    ],
)
def test_the_named_environment_opens(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    expected: str,
) -> None:
    kubeconfig, clusters = tmp_path / "kubeconfig", tmp_path / "clusters.yaml"
    kubeconfig.write_text(_KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("NOMNOM_CLUSTERS", str(clusters))
    if saved := variables.pop("saved", ""):
        use_environment(saved)
    folders = {"NOMNOM_HOME": str(tmp_path / "home"), "XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    shown = _screen(arguments, {**os.environ, **folders, **variables, "TERM": "xterm-256color"}, expected)
    assert expected in shown, shown[-2000:]
    assert "no environment" not in shown


def _screen(arguments: tuple[str, ...], variables: dict[str, str], expected: str, limit: float = 30.0) -> str:
    """What the program writes to a terminal until the text appears or the time is up."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nomnom_cli.program", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env=variables,
    )
    shown, ends = b"", time.monotonic() + limit
    try:
        while time.monotonic() < ends and expected.encode() not in shown:
            if select.select([master], [], [], 0.1)[0]:
                shown += os.read(master, 65536)
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)
    return shown.decode(errors="replace")

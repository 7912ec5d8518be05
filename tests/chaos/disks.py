"""Disks of their own for a test: a file system in an image, whose power can be cut, and small ones that fill up.

A power cut is simulated with ext4's shutdown request (FS_IOC_SHUTDOWN, as xfstests do): from then on nothing more
reaches the disk, neither data nor journal, so what is only in the page cache is lost. The loop device writes with
O_DIRECT, so the image holds what the file system has written to its disk. The cache of a real disk is not simulated: a
write that was sent to the disk counts as stored even without a flush.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import struct
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Self

_SHUTDOWN = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125
"""FS_IOC_SHUTDOWN: _IOR('X', 125, __u32)."""
_NO_LOG_FLUSH = struct.pack("I", 2)
_TOOLS = ("losetup", "mount", "umount", "mkfs.ext4", "e2fsck")
_REPAIRED = (0, 1)
"""Exit codes of e2fsck: no errors; errors corrected, such as the replay of the journal."""


class DiskError(Exception):
    """A disk cannot be prepared, or is damaged."""


@cache
def missing_for_disks() -> str:
    """What prevents the use of disks of one's own on this machine; empty if nothing does."""
    if os.geteuid() != 0:
        return "mounting an image needs root"
    if absent := [each for each in _TOOLS if shutil.which(each) is None]:
        return f"{', '.join(absent)} not installed (util-linux, e2fsprogs)"
    done = subprocess.run(["losetup", "--find"], check=False, capture_output=True, text=True, timeout=10)
    return "" if done.returncode == 0 else f"no loop devices: {done.stderr.strip()}"


class Disk:
    """An ext4 file system in an image file, mounted at ``folder``."""

    def __init__(self, image: Path, folder: Path, megabytes: int = 1536) -> None:
        self.image, self.folder, self._megabytes = image, folder, megabytes
        self._device = ""

    async def __aenter__(self) -> Self:
        if not self.image.exists():
            self.image.parent.mkdir(parents=True, exist_ok=True)
            self.image.touch()
            os.truncate(self.image, self._megabytes * 1024**2)
            await _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self.image))
        await self.mount()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unmount()

    async def mount(self) -> None:
        """Attach the image to a loop device that bypasses the page cache, and mount it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._device = (await _run("losetup", "--direct-io=on", "--find", "--show", str(self.image))).strip()
        if (await _run("losetup", "--noheadings", "--output", "DIO", self._device)).strip() != "1":
            raise DiskError(f"{self._device} does not write {self.image} with O_DIRECT: a cut would lose nothing")
        await _run("mount", self._device, str(self.folder))
        self.folder.chmod(0o755)

    async def unmount(self) -> None:
        """Unmount and detach; does nothing if it is not mounted."""
        if self._device:
            await _run("umount", str(self.folder))
            await _run("losetup", "--detach", self._device)
            self._device = ""

    async def sync(self) -> None:
        """Write everything that is in the page cache."""
        await _run("sync", "--file-system", str(self.folder))

    def cut_power(self) -> None:
        """Stop all writing to the disk at once. Everything that uses it gets errors until it is mounted again."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(folder)

    async def restore_power(self) -> None:
        """After a cut, with no process using the disk: copy what is on it, check the copy, and mount that.

        Raises DiskError if the file system is damaged beyond its journal.
        """
        copy = self.image.with_suffix(".copy")
        # Copied before unmounting, which could write.
        await _run("cp", "--sparse=always", str(self.image), str(copy))
        await self.unmount()
        copy.replace(self.image)
        await _run("e2fsck", "-f", "-p", str(self.image), codes=_REPAIRED)
        await self.mount()


class SmallDisk:
    """A tmpfs of a few megabytes, which a test fills and empties."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self._megabytes = folder, megabytes
        self._filler = folder / "filler"

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        await _run("mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m,mode=0755", "none", str(self.folder))
        return self

    async def __aexit__(self, *_: object) -> None:
        await _run("umount", str(self.folder))

    def fill(self) -> None:
        """Use all space that is left."""
        with self._filler.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def empty(self) -> None:
        """Free the space again."""
        self._filler.unlink(missing_ok=True)


async def _run(*command: str, codes: tuple[int, ...] = (0,)) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode not in codes:
        raise DiskError(f"{' '.join(command)}: exit code {process.returncode}: {(output + errors).decode().strip()}")
    return output.decode()

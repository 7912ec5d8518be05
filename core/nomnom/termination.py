"""Running a service until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Protocol


class Service(Protocol):
    """What runs until it is stopped."""

    @property
    def stopping(self) -> bool:
        """Whether it is stopping."""
        ...

    def stop(self) -> None:
        """Stop gracefully."""
        ...

    async def run(self) -> None:
        """Run until :meth:`stop`."""
        ...


async def run_until_signal(service: Service) -> None:
    """Run a service until SIGTERM or SIGINT; a second signal stops it immediately. Raises what the service raises."""
    loop = asyncio.get_running_loop()
    main_task = asyncio.current_task()
    assert main_task is not None

    def stop() -> None:
        if service.stopping:
            main_task.cancel()
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await service.run()

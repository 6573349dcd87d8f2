"""The engine's part that takes orders, as a process that a test may kill: `python -m tests.engine.orders.process URL FOLDER [NAME]`.

An order under the client id NAME kills the process (SIGKILL) at the moment it reaches the sequencer. SIGTERM ends it in order.
Prints `ready` when the queue is open.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from engine.core import commands as cm
from engine.orders.consumer import OrdersQueue
from tests.engine.orders.ground import exchange
from tests.waiting import until


async def main(url: str, folder: Path, deadly: str) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sequencer = await exchange(folder, crowd=True)
    submit = sequencer.submit

    def kill_or_submit(command: cm.Command, *more: Any) -> Any:
        if isinstance(command, cm.PlaceOrder) and command.cl_ord_id == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return submit(command, *more)

    sequencer.submit = kill_or_submit  # type: ignore[method-assign]
    queue = OrdersQueue(url, sequencer)
    queue.start()
    await until(lambda: queue.ready, 60, "the queue is open")
    print("ready", flush=True)
    await stop.wait()
    await queue.close()
    await sequencer.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""))

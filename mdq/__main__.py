"""Looks after the queues themselves.

python -m mdq redeclare     with listeners and processors stopped: the type and bounds of today's settings, see mdq/README.md
"""

from __future__ import annotations

import argparse

from mdq.redeclare import redeclare
from service.run import Shutdown, main
from service.settings import ComponentSettings, load


def _run() -> None:
    parser = argparse.ArgumentParser("python -m mdq", description="The queues between listeners and processors")
    commands = parser.add_subparsers(dest="what", metavar="command", required=True)
    commands.add_parser("redeclare", help="give a stopped deployment's queues the type that MDQ_QUEUE_TYPE says")
    parser.parse_args()

    async def body(_: Shutdown) -> None:
        print(f"tapeline mdq: {await redeclare(load(ComponentSettings))}", flush=True)

    main("mdq", body)


if __name__ == "__main__":
    _run()

"""Runs one processor worker, looks after its plug-ins, or moves the cache to another number of partitions.

python -m mdp                        a worker; start as many as there is work for, they share the partitions evenly
python -m mdp plugins                which plug-ins there are and how they are; --off, --on, --remove NAME
python -m mdp repartition --to N     with listeners and processors stopped: see mdp/README.md
"""

from __future__ import annotations

import argparse

from mdp.layout.repartition import repartition
from mdp.plugins.command import plugins
from mdp.settings import MdpSettings
from mdp.worker import run
from service.run import Shutdown, main
from service.settings import PARTITIONS_MAX, load


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m mdp", description="The processors: batches in, documents in the cache out")
    commands = parser.add_subparsers(dest="what", metavar="command")
    move = commands.add_parser("repartition", help="move a stopped deployment's cache to another number of partitions")
    move.add_argument("--to", type=_partitions, required=True, metavar="N", help=f"1 to {PARTITIONS_MAX}")
    look = commands.add_parser("plugins", help="show plug-ins, put one off or on, remove what one has left in the cache")
    what = look.add_mutually_exclusive_group()
    for option, about in (
        ("--off", "no worker runs it any more"),
        ("--on", "start it again"),
        ("--remove", "delete what it left"),
    ):
        what.add_argument(option, default="", metavar="NAME", help=about)
    return parser.parse_args()


def _partitions(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= PARTITIONS_MAX:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {PARTITIONS_MAX}")
    return int(text)


def _run() -> None:
    arguments = _arguments()

    async def body(shutdown: Shutdown) -> None:
        settings = load(MdpSettings)
        if arguments.what is None:
            await run(settings, shutdown)
        elif arguments.what == "plugins":
            for line in await plugins(settings, arguments.on, arguments.off, arguments.remove):
                print(line, flush=True)
        else:
            print(f"tapeline mdp: {await repartition(settings, arguments.to, shutdown)}", flush=True)

    main("mdp", body)


if __name__ == "__main__":
    _run()

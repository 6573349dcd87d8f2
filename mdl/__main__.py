"""Runs the listener or the vendor server, writes a simulated tape, or prints the simulated reference table.

python -m mdl                                        the listener
python -m mdl check [--seconds 10]                   what a vendor account gives: what comes, how late, what is refused
python -m mdl vendor-server                          a Massive-compatible server around the simulator or a tape
python -m mdl reference --symbols N --seed S         CSV for MDP_REFERENCE of the simulated universe
python -m mdl tape --symbols N --seed S --events E --quotes 0.7 OUT.ndjson[.gz|.zst]
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from mdl import listener
from mdl.settings import MdlSettings, VendorSettings
from mdl.simulation.universe import reference_csv, universe
from mdl.tapes.generator import write_tape
from service import logs
from service.errors import OperatorError
from service.run import fail, main
from service.settings import load


def run() -> None:
    """Run what the command line asks for."""
    arguments = _parser().parse_args()
    try:
        if arguments.what == "reference":
            sys.stdout.write(reference_csv(universe(arguments.symbols, arguments.seed)))
        elif arguments.what == "tape":
            write_tape(arguments.out, arguments.symbols, arguments.seed, arguments.events, arguments.quotes)
        elif arguments.what == "check":
            sys.exit(_check(load(MdlSettings), arguments.seconds))
        elif arguments.what == "vendor-server":
            _serve_vendor(load(VendorSettings))
        else:
            _listen(load(MdlSettings))
    except OperatorError as error:
        fail("mdl", error)


def _listen(settings: MdlSettings) -> None:
    logs.setup("mdl", settings.log_level, settings.log_format)
    main("mdl", partial(listener.run, settings))


def _check(settings: MdlSettings, seconds: float) -> int:
    from mdl.check import tell

    logs.setup("mdl", "critical", settings.log_format)  # what matters is in the lines that it prints
    return tell(settings, seconds)


def _serve_vendor(settings: VendorSettings) -> None:
    from mdl.vendor import routes as vendor

    logs.setup("mdl-vendor", settings.log_level, settings.log_format)
    main("mdl vendor-server", partial(vendor.run, settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m mdl", description="The listener: follows feeds and publishes their events")
    commands = parser.add_subparsers(dest="what", metavar="command")
    look = commands.add_parser("check", help="look at a vendor account (settings MDL_*) and say what comes and what is wrong")
    look.add_argument("--seconds", type=_seconds, default=10.0, help="how long to look, 1 to 600")
    commands.add_parser("vendor-server", help="a Massive-compatible WebSocket server (settings MDL_VENDOR_*)")
    for name, help_ in (("reference", "print the simulated universe as CSV"), ("tape", "write a tape for benchmarks")):
        command = commands.add_parser(name, help=help_)
        command.add_argument("--symbols", type=_positive, default=500, help="size of the universe")
        command.add_argument("--seed", type=int, default=7, help="same seed, same output")
    command.add_argument("--events", type=_positive, default=100_000)
    command.add_argument("--quotes", type=_share, default=0.7, help="share of quotes, 0 to 1")
    command.add_argument("out", type=Path, help="OUT.ndjson, .ndjson.gz or .ndjson.zst")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 600:
        raise argparse.ArgumentTypeError("must be from 1 to 600")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


if __name__ == "__main__":
    run()

"""Says which commands the image knows, when it is started without one."""

import sys

COMMANDS = {
    "python -m mdl": "the listener",
    "python -m mdl vendor-server": "a Massive-compatible server for tests",
    "python -m mdp": "a processor",
    "python -m wds serve": "the WebSocket service",
    "python -m scp": "the control plane and the page",
    "python -m engine serve": "the exchange",
    "python -m engine bots": "bots that trade on it",
    "python -m engine oms": "orders and trades in SQL",
    "python -m engine risk": "the sample risk service",
}


def main() -> int:
    """Print the commands; return 2: nothing was started."""
    print("tapeline: error: the image does not know what to run. Give one of these commands:", file=sys.stderr)
    for command, about in COMMANDS.items():
        print(f"  docker run … tapeline {command:28} {about}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

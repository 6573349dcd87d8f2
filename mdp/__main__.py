"""`python -m mdp`: one processor worker. Start as many as there is work for; they share the partitions evenly."""

from __future__ import annotations

from mdp.settings import MdpSettings
from mdp.worker import run
from service.run import Shutdown, main
from service.settings import load


async def body(shutdown: Shutdown) -> None:
    """Read the settings and run a worker."""
    await run(load(MdpSettings), shutdown)


if __name__ == "__main__":
    main("mdp", body)

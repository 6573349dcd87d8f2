"""Shows operators how plug-ins are, puts them off and on again for all workers, and takes away what a removed one has left.

python -m mdp plugins                  a line for each: state, workers, failures, what it missed, why
python -m mdp plugins --off bursts     within a second no worker runs it; it stays off until it is put on
python -m mdp plugins --on bursts      it is started again from its checkpoint, whatever had ended it
python -m mdp plugins --remove bursts  deletes its checkpoint, channels and boards, when no worker has it any more
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable
from itertools import product
from typing import Any

import msgspec

from mdc import keys
from mdc.channels import OWN_KIND
from mdc.connect import AWAY, check_cache, open_cache
from mdc.documents import decode_doc
from mdp.plugins.installed import names_installed
from mdp.plugins.rack import Order, why_off
from mdp.settings import MdpSettings
from service.clock import SystemClock
from service.errors import OperatorError
from service.keyspace import space_of

CELLS_A_ROUND = 2_000
SILENT_MS = 10_000
FIX = "Start Redis or correct MDC_URL"


async def plugins(settings: MdpSettings, on: str = "", off: str = "", remove: str = "") -> list[str]:
    """Do what was asked for; return the lines to print.  Raises: OperatorError."""
    redis = open_cache(settings.mdc_url, "mdp-plugins")
    try:
        await check_cache(redis, settings.mdc_url)
        known = await _known(redis)
        for name in filter(None, (on, off, remove)):
            await _check(redis, name, known)
        if remove:
            return [await _remove(redis, remove, known.get(remove, {}))]
        if on or off:
            return [await _order(redis, on or off, "on" if on else "off")]
        return _table(known, await redis.hgetall(_orders(redis)))
    except AWAY as error:
        raise OperatorError(f"Redis at MDC_URL does not answer: {str(error) or type(error).__name__}", FIX, 3) from None
    finally:
        await redis.aclose()


async def _known(redis: Any) -> dict[str, dict[str, Any]]:
    """Return what the processors say of plug-ins; nothing when none of them has spoken lately."""
    body = await redis.get(space_of(redis).shared + keys.document("status:pipeline"))
    if body is None or SystemClock().wall_ns() // 1_000_000 - decode_doc(body).ts > SILENT_MS:
        return {}
    status = msgspec.json.decode(decode_doc(body).data)
    found: dict[str, dict[str, Any]] = status.get("processors", {}).get("plugins", {})
    return found


async def _check(redis: Any, name: str, known: Iterable[str]) -> None:
    ordered = {one.decode() for one in await redis.hkeys(_orders(redis))}
    kept = 0
    for home in await _homes(redis):
        kept += await redis.exists(home + keys.index(f"own:{name}"), home + keys.index(f"ownlog:{name}"))
    if not OWN_KIND.fullmatch(name) or not (kept or name in {*known, *ordered, *names_installed()}):
        there = ", ".join(sorted({*known, *ordered, *names_installed()})) or "none"
        raise OperatorError(f"nobody knows a plug-in {name[:40]!r}; there are {there}", "Say one of these")


async def _order(redis: Any, name: str, state: Any) -> str:
    order = Order(state, f"put {state} by hand", _operator(), SystemClock().wall_ns() // 1_000_000)
    await redis.hset(_orders(redis), name, msgspec.json.encode(order))
    return f"the plug-in {name} is {state}; processors follow within a second or two"


def _orders(redis: Any) -> str:
    return space_of(redis).shared + keys.PLUGINS


async def _partitions(redis: Any) -> int:
    return int(await redis.get(space_of(redis).shared + keys.PARTITIONS) or 0)


async def _homes(redis: Any) -> list[str]:
    """Return what stands before the keys of each partition, each once."""
    return space_of(redis).homes(await _partitions(redis))


def _operator() -> str:
    try:
        return getpass.getuser()[:40]
    except (OSError, KeyError, ImportError):  # a container's user has no name
        return "operator"


def _table(known: dict[str, dict[str, Any]], orders: dict[bytes, bytes]) -> list[str]:
    held = {name.decode(): why_off(body) for name, body in orders.items()}
    names = sorted({*known, *(name for name, why in held.items() if why)})
    if not names:
        return ["no processor has a plug-in; mdp/plugins/README.md says how one is installed"]
    lines = []
    for name in names:
        told = known.get(name, {"state": "off" if held.get(name) else "not installed"})
        facts = [f"{name}: {told['state']}", f"version {', '.join(told['versions'])}" if told.get("versions") else ""]
        facts += [f"{told[what]} {word}" for what, word in WORDS if told.get(what)]
        facts.append(f"not in partitions {', '.join(map(str, told['off']))}" if told.get("off") else "")
        facts.append(held.get(name) or told.get("error", ""))
        lines.append("; ".join(filter(None, facts)))
    return lines


WORDS = (("workers", "worker(s)"), ("failures", "failure(s)"), ("gaps", "gap(s)"), ("missed_events", "missed event(s)"))


async def _remove(redis: Any, name: str, told: dict[str, Any]) -> str:
    """Delete what a plug-in has left in the cache.  Raises: OperatorError while a worker has it."""
    if told.get("workers"):
        raise OperatorError(
            f"{told['workers']} processor(s) have the plug-in {name}", "Uninstall it there and restart them first"
        )
    cells = channels = 0
    space, partitions = space_of(redis), await _partitions(redis)
    for number in range(partitions):
        checkpoint = space.of(number) + keys.checkpoint(number)
        for pattern in (f"own:{name}:*", f"ownlog:{name}:*", f"plugin:{name}"):
            fields = [field async for field, _ in redis.hscan_iter(checkpoint, match=pattern, count=CELLS_A_ROUND)]
            for at in range(0, len(fields), CELLS_A_ROUND):
                cells += await redis.hdel(checkpoint, *fields[at : at + CELLS_A_ROUND])
    for home, family in product(await _homes(redis), ("own", "ownlog")):
        index = home + keys.index(f"{family}:{name}")
        names = [one.decode() for one in await redis.smembers(index)]
        for at in range(0, len(names), CELLS_A_ROUND):
            some = names[at : at + CELLS_A_ROUND]
            channels += await redis.unlink(*(home + keys.document(f"{family}:{name}:{symbol}") for symbol in some))
        await redis.unlink(index)
    await redis.hdel(_orders(redis), name)
    return f"{cells} cells of checkpoints and {channels} channels of the plug-in {name} are deleted"

"""Decides which processes run on this machine, with which commands, variables and admin ports.

Data order: cache, exchange, bots, listener, processors, data service, page; they are started in it. Stopping goes from the
feed downwards, so that each hop can drain what the one above it sent: bots, then the listener, which gives back to the exchange
what it has taken, then exchange and processors; the cache goes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.settings import LocalSettings
from service.cluster_url import is_cluster

BOTS, LISTENER, PROCESSORS, SERVICES, CACHE = range(5)  # the stages of the stop


@dataclass(frozen=True, slots=True)
class Process:
    """One child process. `admin` holds (component, port) of its admin ports; `stage` orders the stop, lowest first."""

    name: str
    arguments: tuple[str, ...]
    stage: int
    environment: Mapping[str, str] = field(default_factory=dict)
    admin: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The processes of one run, in the order of their start, and the ports people use."""

    processes: tuple[Process, ...]
    page_port: int
    stream_port: int
    mdl_admin_port: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A port this run will open, and the variable that moves it."""

    variable: str
    port: int


def claims(settings: LocalSettings) -> list[Claim]:
    """Return every port that the settings ask for by number."""
    ports = {
        "SCP_PORT": settings.scp_port,
        "WDS_PORT": settings.wds_port,
        "MDL_ADMIN_PORT": settings.mdl_admin_port,
        "MDP_ADMIN_PORT": settings.mdp_admin_port,
        "WDS_ADMIN_PORT": settings.wds_admin_port,
        "SCP_ADMIN_PORT": settings.scp_admin_port,
    }
    if "engine" in settings.sources:
        ports |= {"ENGINE_PORT": settings.engine_port, "ENGINE_ADMIN_PORT": settings.engine_admin_port}
        ports |= {"BOTS_ADMIN_PORT": settings.bots_admin_port}
    if settings.embedded_cache:
        ports["MDC_EMBEDDED_PORT"] = settings.mdc_port
    found = [Claim(variable, port) for variable, port in ports.items() if port]
    further = range(1, settings.wds_workers) if settings.wds_admin_port else ()  # each worker takes the next port by itself
    return found + [Claim("WDS_ADMIN_PORT", settings.wds_admin_port + worker) for worker in further]


def clash(wanted: list[Claim]) -> tuple[Claim, Claim] | None:
    """Return two claims of the same port, if any."""
    first: dict[int, Claim] = {}
    for claim in wanted:
        if claim.port in first:
            return first[claim.port], claim
        first[claim.port] = claim
    return None


def streams_url(settings: LocalSettings) -> str:
    """Return where the exchange's streams go: nowhere without a server, and not to a cluster, where they would need one slot."""
    return "" if settings.embedded_cache or is_cluster(settings.mdc_url) else settings.mdc_url


def plan(
    settings: LocalSettings, ports: Mapping[str, int], run_dir: Path, reference: Path | None, keys: Mapping[str, str]
) -> Plan:
    """Return the processes.

    `keys` are the exchange\'s by role, for those that ask it. `ports` holds a number for every variable of
    `claims`, and MDP_ADMIN_PORT_1… for more workers.
    """
    cache_url = f"redis://127.0.0.1:{ports['MDC_EMBEDDED_PORT']}/0" if settings.embedded_cache else settings.mdc_url
    shared = {"MDC_URL": cache_url, "MDQ_URL": settings.mdq_url, "RUN_DIR": str(run_dir), "LOG_FORMAT": "json"}
    shared["MDQ_PARTITIONS"] = str(settings.mdq_partitions)
    processes = [
        *_cache(settings, ports, shared),
        *_exchange(settings, ports, shared, keys),
        *_pipeline(settings, ports, shared, reference, keys),
        _stream(settings, ports, shared),
        _page(settings, ports, shared, keys),
    ]
    return Plan(tuple(processes), ports["SCP_PORT"], ports["WDS_PORT"], ports["MDL_ADMIN_PORT"])


def _cache(settings: LocalSettings, ports: Mapping[str, int], shared: Mapping[str, str]) -> list[Process]:
    if not settings.embedded_cache:
        return []
    return [Process("mdc", ("-m", "mdc", "embedded"), CACHE, {**shared, "MDC_EMBEDDED_PORT": str(ports["MDC_EMBEDDED_PORT"])})]


def _exchange(
    settings: LocalSettings, ports: Mapping[str, int], shared: Mapping[str, str], keys: Mapping[str, str]
) -> list[Process]:
    """The engine and the bots that keep it alive, when its market is among the feeds."""
    if "engine" not in settings.sources:
        return []
    engine = {
        "ENGINE_HOST": "127.0.0.1",
        "ENGINE_PORT": str(ports["ENGINE_PORT"]),
        "ENGINE_ADMIN_PORT": str(ports["ENGINE_ADMIN_PORT"]),
        "ENGINE_DIR": str(Path(shared["RUN_DIR"]) / "engine"),
        "ENGINE_PRUNE": "true",  # a demonstration that runs for days must not fill the disk
        "ENGINE_STREAMS_URL": streams_url(settings),
        "ENGINE_ORDERS_URL": "" if settings.embedded_queue else settings.mdq_url,
    }
    bots = {"ENGINE_URL": _gateway(ports), "BOTS_SEED": str(settings.bots_seed), "BOTS_RATE": f"{settings.bots_rate:g}"}
    bots["BOTS_ADMIN_PORT"] = str(ports["BOTS_ADMIN_PORT"])
    bots["BOTS_API_TOKEN"] = keys["operator"]  # they list contracts, set marks and bring their own money
    admin = [(name, ports[f"{name.upper()}_ADMIN_PORT"]) for name in ("engine", "bots")]
    return [
        Process("engine", ("-m", "engine", "serve"), PROCESSORS, {**shared, **engine}, (admin[0],)),
        Process("bots", ("-m", "engine", "bots"), BOTS, {**shared, **bots}, (admin[1],)),
    ]


def _gateway(ports: Mapping[str, int]) -> str:
    return f"http://127.0.0.1:{ports['ENGINE_PORT']}"


def _pipeline(
    settings: LocalSettings,
    ports: Mapping[str, int],
    shared: Mapping[str, str],
    reference: Path | None,
    keys: Mapping[str, str],
) -> list[Process]:
    """One process around the in-memory queue, or a listener and processors of their own around RabbitMQ."""
    mdl = {**shared, **feed_variables(settings), "MDL_ADMIN_PORT": str(ports["MDL_ADMIN_PORT"])}
    if "engine" in settings.sources:
        mdl |= {"MDL_ENGINE_URL": _gateway(ports), "MDL_ENGINE_TOKEN": keys["market-data"]}
    mdl["MDL_RECORD_DIR"] = str(settings.record_dir or Path(shared["RUN_DIR"]) / "recordings")
    mdp = {**shared, "MDP_ADMIN_PORT": str(ports["MDP_ADMIN_PORT"])}
    if reference is not None:
        mdp["MDP_REFERENCE"] = str(reference)
    if simulated(settings):
        mdl["MDL_SIMULATED_REST"] = "true"
    mdp |= _rest(settings, "MDP")
    admin = (("mdl", ports["MDL_ADMIN_PORT"]), ("mdp", ports["MDP_ADMIN_PORT"]))
    if settings.embedded_queue:
        both = {**mdl, **mdp, "MDQ_URL": "memory://local"}
        if settings.embedded_cache:
            both |= {"MDP_FLUSH_MS": str(settings.embedded_flush_ms)}
        return [Process("pipeline", ("-m", "deploy.pipeline"), LISTENER, both, admin)]
    found = [Process("mdl", ("-m", "mdl"), LISTENER, mdl, admin[:1])]
    for worker in range(settings.mdp_workers):
        port = ports["MDP_ADMIN_PORT" if worker == 0 else f"MDP_ADMIN_PORT_{worker}"]
        name = "mdp" if settings.mdp_workers == 1 else f"mdp-{worker}"
        found.append(Process(name, ("-m", "mdp"), PROCESSORS, {**mdp, "MDP_ADMIN_PORT": str(port)}, ((name, port),)))
    return found


def _stream(settings: LocalSettings, ports: Mapping[str, int], shared: Mapping[str, str]) -> Process:
    own = {"WDS_PORT": str(ports["WDS_PORT"]), "WDS_ADMIN_PORT": str(ports["WDS_ADMIN_PORT"])}
    own["WDS_JWKS_URL"] = f"http://127.0.0.1:{ports['SCP_PORT']}/jwks.json"
    own |= {"WDS_WORKERS": str(settings.wds_workers), "WDS_SUBS_MAX": str(settings.wds_subs_max)}
    first = ports["WDS_ADMIN_PORT"]
    admin = tuple(("wds" if worker == 0 else f"wds-{worker}", first + worker) for worker in range(settings.wds_workers))
    return Process("wds", ("-m", "wds", "serve"), SERVICES, {**shared, **own}, admin)


def _page(settings: LocalSettings, ports: Mapping[str, int], shared: Mapping[str, str], keys: Mapping[str, str]) -> Process:
    own = {name: str(ports[name]) for name in ("SCP_PORT", "SCP_ADMIN_PORT", "WDS_PORT")}
    if "engine" in settings.sources:
        own |= {"SCP_ENGINE_URL": _gateway(ports), "SCP_ENGINE_TOKEN": keys["operator"]}
    own |= _rest(settings, "SCP")
    if simulated(settings):
        own["SCP_REST_URL"] = f"http://127.0.0.1:{ports['MDL_ADMIN_PORT']}/simulated"
    return Process("scp", ("-m", "scp"), SERVICES, {**shared, **own}, (("scp", ports["SCP_ADMIN_PORT"]),))


def simulated(settings: LocalSettings) -> bool:
    """Whether companies and older candles are those of the simulated market: the listener that plays it answers."""
    return "simulator" in settings.sources and not settings.rest_url


def _rest(settings: LocalSettings, prefix: str) -> dict[str, str]:
    """Return where the vendor's REST service is, and the key for it."""
    if not settings.rest_url:
        return {}
    key = settings.rest_key or settings.api_key
    found = {f"{prefix}_REST_URL": settings.rest_url}
    return found | ({f"{prefix}_REST_KEY": key.get_secret_value()} if key is not None else {})


def feed_variables(settings: LocalSettings) -> dict[str, str]:
    """Return the listener's variables for the short ones of `make run`."""
    feed: dict[str, str] = {"MDL_FEED": settings.source}
    if "engine" in settings.sources and "massive" not in settings.sources:
        feed |= {"MDL_LEASE": settings.lease or "off"}  # the exchange is this run's own: nobody else reads it
    if "simulator" in settings.sources:
        feed |= {"MDL_SYMBOLS": str(settings.symbols), "MDL_RATE": f"{settings.rate:g}", "MDL_SEED": str(settings.seed)}
    if "replay" in settings.sources:
        feed |= {"MDL_TAPE": settings.tape, "MDL_SPEED": settings.speed, "MDL_LOOP": str(settings.loop).lower()}
    if "massive" in settings.sources:
        feed |= {"MDL_MARKET": settings.market}
    if {"massive", "news"} & set(settings.sources) and settings.api_key is not None:
        feed |= {"MDL_API_KEY": settings.api_key.get_secret_value()}
    if settings.news_url:
        feed |= {"MDL_NEWS_URL": settings.news_url}
    return feed

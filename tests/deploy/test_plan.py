"""Checks which processes a run consists of, and which variables and ports they get."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from deploy.plan import Claim, Plan, Process, claims, clash, feed_variables, plan
from deploy.settings import LocalSettings
from mdl.settings import MdlSettings
from service.settings import load

RABBIT, REDIS = "amqp://guest:guest@127.0.0.1:5672/", "redis://127.0.0.1:6379/0"
KEYS = {"operator": "tl_o", "market-data": "tl_m"}
PORTS = {
    "SCP_PORT": 8000, "WDS_PORT": 8400, "MDL_ADMIN_PORT": 9101, "MDP_ADMIN_PORT": 9102, "WDS_ADMIN_PORT": 9103,
    "SCP_ADMIN_PORT": 9105, "MDC_EMBEDDED_PORT": 6390, "MDP_ADMIN_PORT_1": 50001, "MDP_ADMIN_PORT_2": 50002,
    "ENGINE_PORT": 8181, "ENGINE_ADMIN_PORT": 9104, "BOTS_ADMIN_PORT": 9108,
}  # fmt: skip


def settings(**given: object) -> LocalSettings:
    return LocalSettings.model_validate({"mdq_url": "memory://", "mdc_url": "memory://", **given})


def made(**given: object) -> Plan:
    return plan(settings(**given), PORTS, Path("/run"), Path("/run/reference.csv"), KEYS)


def named(what: Plan, name: str) -> Process:
    return next(process for process in what.processes if process.name == name)


def test_the_embedded_run_is_six_processes() -> None:
    """Cache, exchange, bots, pipeline, data service, page; four without the exchange."""
    assert [process.name for process in made().processes] == ["mdc", "engine", "bots", "pipeline", "wds", "scp"]
    assert [process.name for process in made(feed="simulator").processes] == ["mdc", "pipeline", "wds", "scp"]


def test_real_servers_split_the_pipeline() -> None:
    """With RabbitMQ and Redis, listener and processors are processes of their own and nothing is embedded."""
    what = made(mdq_url=RABBIT, mdc_url=REDIS, mdp_workers=3)
    assert [process.name for process in what.processes] == ["engine", "bots", "mdl", "mdp-0", "mdp-1", "mdp-2", "wds", "scp"]
    assert {p.environment["MDQ_URL"] for p in what.processes} == {RABBIT}
    assert {p.environment["MDC_URL"] for p in what.processes} == {REDIS}


def test_either_server_can_be_embedded_alone() -> None:
    """RabbitMQ with the embedded cache, Redis with the embedded queue."""
    assert [p.name for p in made(mdq_url=RABBIT, feed="simulator").processes] == ["mdc", "mdl", "mdp", "wds", "scp"]
    assert [p.name for p in made(mdc_url=REDIS, feed="simulator").processes] == ["pipeline", "wds", "scp"]


def test_everybody_uses_the_embedded_cache() -> None:
    """The cache's port becomes the MDC_URL of all."""
    assert {p.environment["MDC_URL"] for p in made().processes} == {"redis://127.0.0.1:6390/0"}


def test_every_worker_has_an_admin_port_of_its_own() -> None:
    """The second processor must not take the data service's admin port."""
    what = made(mdq_url=RABBIT, mdp_workers=3)
    ports = [port for process in what.processes for _, port in process.admin]
    assert len(ports) == len(set(ports)) == 8
    assert named(what, "mdp-2").environment["MDP_ADMIN_PORT"] == "50002"


def test_data_service_workers_count_their_admin_ports_up() -> None:
    """Each is asked whether it is ready, and the default leaves the page's admin port alone."""
    many = settings(wds_workers=4)
    assert [port for _, port in named(made(wds_workers=4), "wds").admin] == [9103, 9104, 9105, 9106]
    assert [claim.port for claim in claims(many) if claim.variable == "WDS_ADMIN_PORT"] == [9110, 9111, 9112, 9113]
    assert clash(claims(many)) is None


def test_the_stop_goes_from_the_feed_downwards() -> None:
    """Who publishes stops before who consumes; the exchange stays until the listener has told it what it took; the cache is last."""
    what = made(mdq_url=RABBIT)
    stages = {process.name: process.stage for process in what.processes}
    assert stages["bots"] < stages["mdl"] < stages["mdp"] < stages["wds"] == stages["scp"] < stages["mdc"]
    assert stages["mdl"] < stages["engine"] < stages["mdc"]


def test_the_exchange_gets_its_place_its_ports_and_real_servers_only() -> None:
    """Streams need a real Redis and the order queue a real RabbitMQ; bots and listener ask the same gateway."""
    engine = named(made(), "engine").environment
    assert (engine["ENGINE_PORT"], engine["ENGINE_ADMIN_PORT"], engine["ENGINE_DIR"]) == ("8181", "9104", "/run/engine")
    assert (engine["ENGINE_STREAMS_URL"], engine["ENGINE_ORDERS_URL"]) == ("", "")
    assert named(made(), "engine").admin == (("engine", 9104),)
    assert named(made(), "bots").admin == (("bots", 9108),)
    real = made(mdq_url=RABBIT, mdc_url=REDIS, bots_rate=12.5, bots_seed=3)
    engine, bots, mdl = (named(real, name).environment for name in ("engine", "bots", "mdl"))
    assert (engine["ENGINE_STREAMS_URL"], engine["ENGINE_ORDERS_URL"]) == (REDIS, RABBIT)
    assert (bots["BOTS_RATE"], bots["BOTS_SEED"], bots["BOTS_API_TOKEN"]) == ("12.5", "3", "tl_o")
    assert mdl["MDL_ENGINE_TOKEN"] == "tl_m"
    assert bots["ENGINE_URL"] == mdl["MDL_ENGINE_URL"] == "http://127.0.0.1:8181"
    assert mdl["MDL_LEASE"] == "off"
    assert named(made(mdq_url=RABBIT, lease="on"), "mdl").environment["MDL_LEASE"] == "on"
    assert "MDL_LEASE" not in named(made(mdq_url=RABBIT, feed="massive+engine"), "mdl").environment


def test_the_simulated_reference_goes_to_the_processors() -> None:
    """Previous closes reach MDP, embedded or not; a replay has none."""
    assert named(made(), "pipeline").environment["MDP_REFERENCE"] == "/run/reference.csv"
    assert named(made(mdq_url=RABBIT), "mdp").environment["MDP_REFERENCE"] == "/run/reference.csv"
    without = plan(settings(), PORTS, Path("/run"), None, KEYS)
    assert "MDP_REFERENCE" not in named(without, "pipeline").environment


def test_the_vendors_rest_service_is_the_processors_matter() -> None:
    """Its address and a key of its own, or the feed's; neither without an address."""
    key, own = SecretStr("vendor"), SecretStr("own")
    given = made(feed="massive", api_key=key, rest_url="https://rest.example.com")
    environment = named(given, "pipeline").environment
    assert (environment["MDP_REST_URL"], environment["MDP_REST_KEY"]) == ("https://rest.example.com", "vendor")
    given = made(feed="massive", api_key=key, rest_url="https://rest.example.com", rest_key=own, mdq_url=RABBIT)
    assert named(given, "mdp").environment["MDP_REST_KEY"] == "own"
    assert "MDP_REST_KEY" not in named(given, "mdl").environment
    assert "MDP_REST_KEY" not in named(made(feed="massive", api_key=key), "pipeline").environment


def test_companies_and_older_candles_come_from_where_the_prices_do() -> None:
    """The vendor with its key; beside a simulator its own market, at the listener's admin port; else nobody."""
    page = named(made(feed="massive", api_key=SecretStr("vendor"), rest_url="https://rest.example.com"), "scp").environment
    assert (page["SCP_REST_URL"], page["SCP_REST_KEY"]) == ("https://rest.example.com", "vendor")
    assert named(made(), "scp").environment["SCP_REST_URL"].endswith(f":{PORTS['MDL_ADMIN_PORT']}/simulated")
    assert named(made(), "pipeline").environment["MDL_SIMULATED_REST"] == "true"
    assert "SCP_REST_URL" not in named(made(feed="massive", api_key=SecretStr("vendor")), "scp").environment


def test_recordings_go_where_the_run_is_unless_told_otherwise() -> None:
    """A second run must not write between the recordings of the first."""
    assert named(made(), "pipeline").environment["MDL_RECORD_DIR"] == "/run/recordings"
    assert named(made(record_dir="/tapes"), "pipeline").environment["MDL_RECORD_DIR"] == "/tapes"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"symbols": 9, "rate": 12.5, "seed": 3}, {"feed": "simulator+engine+news", "symbols": 9, "rate": 12.5, "seed": 3}),
        ({"feed": "simulator", "rate": 3}, {"feed": "simulator", "rate": 3, "lease": "auto"}),
        ({"feed": "engine"}, {"feed": "engine", "lease": "off"}),
        ({"feed": "replay+engine", "tape": "a.gz", "speed": "2"}, {"feed": "replay+engine", "tape": "a.gz", "factor": 2}),
        ({"tape": "a.gz", "speed": "max", "loop": True}, {"feed": "replay", "tape": "a.gz", "speed": "max", "loop": True}),
        ({"feed": "massive", "market": "crypto", "api_key": "k"}, {"feed": "massive", "market": "crypto"}),
        ({"feed": "news", "news_url": "wss://h.example", "api_key": "k"}, {"feed": "news", "news_url": "wss://h.example"}),
    ],
)
def test_the_listener_reads_what_the_plan_writes(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, object], expected: dict[str, object]
) -> None:
    """The short variables of `make run` arrive in the listener's own settings."""
    for name, value in feed_variables(settings(**given)).items():
        monkeypatch.setenv(name, value)
    read = load(MdlSettings)
    assert {name: getattr(read, name) for name in expected} == expected
    assert read.api_key.get_secret_value() == given.get("api_key", "")


def test_two_variables_with_one_port_are_found() -> None:
    """The message can name both."""
    pair = clash(claims(settings(scp_port=8400)))
    assert pair == (Claim("SCP_PORT", 8400), Claim("WDS_PORT", 8400))
    assert clash(claims(settings())) is None


def test_free_ports_are_no_claims() -> None:
    """A port of 0 asks for any, and the cache's port matters only when the cache is embedded."""
    wanted = {claim.variable for claim in claims(settings(scp_port=0, mdc_port=6390, mdc_url=REDIS, feed="simulator"))}
    assert {claim.variable for claim in claims(settings())} - wanted == {
        "SCP_PORT",
        "ENGINE_PORT",
        "ENGINE_ADMIN_PORT",
        "BOTS_ADMIN_PORT",
    }
    assert wanted == {"WDS_PORT", "MDL_ADMIN_PORT", "MDP_ADMIN_PORT", "WDS_ADMIN_PORT", "SCP_ADMIN_PORT"}

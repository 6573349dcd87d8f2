"""helm/tapeline: every case of the matrix is valid for the oldest and newest Kubernetes, and says what the components mean."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from deploy.health import PORTS
from engine.bots.runner import BotsSettings
from engine.oms.consumer import OmsSettings
from engine.settings import EngineSettings
from mdl.settings import MdlSettings
from mdp.settings import MdpSettings
from scp.settings import ScpSettings
from service.settings import ComponentSettings, variables
from tests.helm import crds
from tests.helm.chart import CHART, FOREIGN, MATRIX, STANDBY, objects, of_kind, parsed, pods, rendered, run
from tests.helm.readme import readme
from wds.settings import WdsSettings

SETTINGS: dict[str, type[ComponentSettings]] = {
    "mdl": MdlSettings, "mdp": MdpSettings, "wds": WdsSettings, "scp": ScpSettings, "migrate": ScpSettings,
    "engine": EngineSettings, "standby": EngineSettings, "bots": BotsSettings, "oms": OmsSettings,
}  # fmt: skip
ADMIN_PORTS = PORTS | {"STANDBY": PORTS["ENGINE"]}
MAIN_PORTS = {"wds": {8400}, "scp": {8000}, "engine": {8181}, "standby": {8181}}
OLDEST = "1.29.0"
CASES = pytest.mark.parametrize("case", MATRIX)


@cache
def validate(one: str, version: str) -> None:
    """Check an object, once for all cases that have the same."""
    kubernetes_validate.validate(json.loads(one), version, strict=True)


@CASES
def test_the_chart_passes_the_linter(case: str) -> None:
    """Warnings are failures."""
    assert "0 chart(s) failed" in run("lint", "--strict", values=MATRIX[case]).stdout


@CASES
@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_every_object_is_valid(case: str, version: str) -> None:
    """Unknown fields and kinds are failures, for the oldest and the newest Kubernetes; kinds of operators are named."""
    assert f">={OLDEST}" in yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    for one in objects(case):
        if one["kind"] not in FOREIGN:
            validate(json.dumps(one), version)


@CASES
def test_every_object_of_an_operator_is_one_that_its_crd_takes(case: str) -> None:
    """Wrong types and fields that the server would drop in silence; what Kubernetes itself defines in them is checked as in a pod."""
    for one in of_kind(case, *FOREIGN):
        assert crds.faults(one) == []
        if one["kind"] == "Redis":
            spec = one["spec"]
            container = {"name": "redis", "image": "redis", "securityContext": spec["securityContext"]}
            container["resources"] = spec["kubernetesConfig"]["resources"]
            pod = {"securityContext": spec["podSecurityContext"], "containers": [container]}
            validate(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}), OLDEST)


def test_every_operators_kind_is_rendered_somewhere_and_its_faults_are_found() -> None:
    """Each schema has an object in the matrix, and refuses it with a field more, with one of another type, and in another version."""
    found = {one["kind"]: one for case in MATRIX for one in of_kind(case, *FOREIGN)}
    assert set(found) == FOREIGN == {path.stem for path in crds.FOLDER.glob("*.json")}
    for kind, one in found.items():
        assert crds.known(kind)["source"]
        assert crds.faults(one | {"spec": one["spec"] | {"replica": 3}})
        assert crds.faults(one | {"spec": [one["spec"]]})
        assert crds.faults(one | {"apiVersion": "example.com/v1"})


@CASES
def test_every_variable_is_one_that_the_component_reads(case: str) -> None:
    """A misspelt variable would be ignored in silence; a secret never stands in the value."""
    for component, pod in pods(case).items():
        if component not in SETTINGS:
            continue
        known = variables(SETTINGS[component])
        for entry in pod["spec"]["containers"][0]["env"]:
            name = entry["name"]
            assert name in known or name.removesuffix("_FILE") in known, f"{component} does not read {name}"
            assert not known.get(name), f"{component} gets the secret {name} in its environment"


@CASES
def test_files_of_secrets_are_mounted_where_the_variables_say(case: str) -> None:
    """Each pod has the secrets it names and no others."""
    for component, pod in pods(case).items():
        if component not in SETTINGS:
            continue
        named = {e["value"].rsplit("/", 1)[1] for e in pod["spec"]["containers"][0]["env"] if e["name"].endswith("_FILE")}
        volume = next(v for v in pod["spec"]["volumes"] if v["name"] == "secrets")
        mounted = [item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
        assert all(source["secret"]["name"] for source in volume["projected"]["sources"]), component
        assert sorted(named) == sorted(mounted), component


@CASES
def test_probes_and_ports_are_those_that_a_component_opens(case: str) -> None:
    """The defaults of the settings classes are what the pods declare; probes name a declared port."""
    for component, pod in pods(case).items():
        container = pod["spec"]["containers"][0]
        declared = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            for way in ("httpGet", "tcpSocket"):
                if way in container.get(probe, {}):
                    assert container[probe][way]["port"] in declared, component
        if component in SETTINGS and declared:
            assert set(declared.values()) == {ADMIN_PORTS[component.upper()]} | MAIN_PORTS.get(component, set())


@CASES
def test_services_and_policies_name_open_ports_and_existing_pods(case: str) -> None:
    """Whatever a Service, a policy, a budget or a scaler selects is there."""
    found = pods(case)
    open_ports = {
        name: {port["containerPort"] for port in pod["spec"]["containers"][0].get("ports", [])} for name, pod in found.items()
    }
    names = {name: {p["name"] for p in pod["spec"]["containers"][0].get("ports", [])} for name, pod in found.items()}
    for one in of_kind(case, "Service"):
        component = one["spec"]["selector"]["app.kubernetes.io/component"]
        assert {port["targetPort"] for port in one["spec"]["ports"]} <= names[component]
    for one in of_kind(case, "NetworkPolicy"):
        component = one["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for rule in one["spec"].get("ingress", []):
            assert {port["port"] for port in rule["ports"]} <= open_ports[component], component
    for one in of_kind(case, "PodDisruptionBudget", "Deployment", "StatefulSet"):
        chosen = one["spec"]["selector"]["matchLabels"]
        labels = found[chosen["app.kubernetes.io/component"]]["metadata"]["labels"]
        assert chosen.items() <= labels.items()
    workloads = {one["metadata"]["name"] for one in of_kind(case, "Deployment", "StatefulSet")}
    for one in of_kind(case, "HorizontalPodAutoscaler", "ScaledObject"):
        assert one["spec"]["scaleTargetRef"]["name"] in workloads


def who_may(case: str) -> dict[tuple[str, int], set[str]]:
    """Return (component, port) → the components and namespaces that a policy lets in."""
    found: dict[tuple[str, int], set[str]] = {}
    for one in of_kind(case, "NetworkPolicy"):
        component = one["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for rule in one["spec"].get("ingress", []):
            for source in rule["from"]:
                chosen = source.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component")
                space = (source.get("namespaceSelector") or {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
                found.setdefault((component, rule["ports"][0]["port"]), set()).add(chosen or space)
    return found


def test_every_listed_rule_of_access_is_enforced() -> None:
    """8181 from the listener, bots, OMS and control plane; admin ports from the control plane and Prometheus; the world: two ports."""
    who = {port: some for (_, port), some in who_may("exchange").items()}
    assert who[8181] == {"mdl", "bots", "oms", "scp"}
    assert {port for port, some in who.items() if "ingress-nginx" in some} == {8000, 8400}
    for port in (9101, 9102, 9103, 9104, 9107, 9108):
        assert who[port] == {"scp", "monitoring"}
    assert who[9105] == {"scp", "wds", "monitoring"}, "the data services read the public keys there"
    assert set(pods("exchange")) - {"check", "migrate"} <= {component for component, _ in who_may("exchange")}


def test_leader_and_standby_reach_each_other_and_clients_the_leader() -> None:
    """By Services that also name pods that are not ready: with `sync` a leader waits for its standby before it is."""
    case, clients = "exchange with standby", {"mdl", "bots", "oms", "scp"}
    who = who_may(case)
    assert who["engine", 8181] == clients | {"standby"}
    assert who["standby", 8181] == clients | {"engine"}
    assert all("standby" in who[server] for server in (("redis", 6379), ("streams", 6379), ("rabbitmq", 5672)))
    services = {one["metadata"]["name"].removeprefix("t-tapeline-"): one["spec"] for one in of_kind(case, "Service")}
    chosen = {name: spec["selector"]["app.kubernetes.io/component"] for name, spec in services.items()}
    assert (chosen["engine"], chosen["engine-peer"], chosen["standby-peer"]) == ("standby", "engine", "standby")
    assert services["engine-peer"]["publishNotReadyAddresses"] is services["standby-peer"]["publishNotReadyAddresses"] is True
    follows = {name: environment(pods(case)[name]).get("ENGINE_FOLLOW") for name in ("engine", "standby")}
    assert follows == {"engine": "http://t-tapeline-standby-peer:8181", "standby": "http://t-tapeline-engine-peer:8181"}


def test_who_was_promoted_is_not_restarted_by_the_upgrade_that_says_so() -> None:
    """`engine.standby.leader` moves the Service and makes the other one a follower; the leader's own pod stays as it is."""
    before = STANDBY | {"engine": STANDBY["engine"] | {"standby": {"enabled": True, "leader": "engine"}}}
    manifest = run("template", "t", "--namespace", "n", values=before).stdout
    (alone,) = (
        one for one in parsed(manifest) if (one["kind"], one["metadata"]["name"]) == ("StatefulSet", "t-tapeline-standby")
    )
    (now,) = (one for one in of_kind("exchange with standby", "StatefulSet") if one["metadata"]["name"].endswith("-standby"))
    assert now == alone


def test_whatever_a_component_reads_can_be_set() -> None:
    """By a value, by extraEnv, or, when it is secret, by extraSecrets alone: extraEnv refuses every setting that is typed as one."""
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    for component, settings in SETTINGS.items():
        if component in ("migrate", "standby"):
            continue  # they are given what `scp` and `engine` are
        (refused,) = (p for p, of in schema[component]["properties"]["extraEnv"]["patternProperties"].items() if of is False)
        for name, secret in variables(settings).items():
            assert bool(re.search(refused, name)) >= secret, f"{component}.extraEnv would take the secret {name}"
            (taken,) = schema[component]["properties"]["extraSecrets"]["patternProperties"]
            assert re.search(taken, name)
    container = pods("exchange with standby")["scp"]["spec"]["containers"][0]
    assert environment(pods("exchange with standby")["scp"])["SCP_SMTP_URL_FILE"] == "/run/secrets/tapeline/SCP_SMTP_URL"
    assert {"name": "SCP_MAIL_FROM", "value": "desk@example.com"} in container["env"]


def environment(pod: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a pod's container."""
    return {entry["name"]: entry.get("value", "") for entry in pod["spec"]["containers"][0]["env"]}


@CASES
def test_pods_are_restricted(case: str) -> None:
    """What the `restricted` Pod Security Standard asks for, and a read-only root with memory limits on top."""
    for component, pod in pods(case).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all({"secret", "projected", "emptyDir", "configMap"} & volume.keys() for volume in spec.get("volumes", []))
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, component
            assert context["readOnlyRootFilesystem"] is True, component
            assert context["capabilities"] == {"drop": ["ALL"]}, component
            assert container["resources"]["limits"]["memory"], component


@CASES
def test_no_secret_stands_in_plain_text(case: str) -> None:
    """Passwords and tokens are in Secrets only: no other object carries a value of one, or a URL with a password."""
    words = [
        value
        for one in of_kind(case, "Secret")
        for name, value in ((n, b64decode(v).decode()) for n, v in one["data"].items())
        if name.endswith(("password", "token", "key"))
    ]
    assert case == "own secret" or len(words) >= 6
    for one in objects(case):
        if one["kind"] != "Secret":
            text = yaml.safe_dump(one)
            assert not [word for word in words if word in text], one["metadata"]["name"]
            assert not re.search(r"://[^/\s]*:[^/\s]+@", text), one["metadata"]["name"]


def test_one_vendor_connection_and_one_engine() -> None:
    """The listener needs the lease, so that a new pod waits while the old one speaks; the engine is one pod with a volume."""
    assert environment(pods("production")["mdl"])["MDL_LEASE"] == "on"
    engine = next(one for one in of_kind("exchange", "StatefulSet") if one["metadata"]["name"].endswith("-engine"))
    assert engine["spec"]["replicas"] == 1
    assert engine["spec"]["volumeClaimTemplates"]


def test_companies_of_the_simulated_market_come_from_the_one_listener_that_plays_it() -> None:
    """By a Service of its admin port, which only the control plane may reach; the vendor's own service and its key come first."""
    page, service = environment(pods("minimal")["scp"]), ("Service", "t-tapeline-mdl")
    assert page["SCP_REST_URL"] == "http://t-tapeline-mdl:9101/simulated"
    assert urlsplit(page["SCP_REST_URL"]).hostname == page["SCP_PRIVATE_HOSTS"]
    assert "SCP_REST_KEY_FILE" not in page
    assert environment(pods("minimal")["mdl"])["MDL_SIMULATED_REST"] == "true"
    assert service in {(one["kind"], one["metadata"]["name"]) for one in objects("minimal")}
    assert "scp" in who_may("minimal")["mdl", 9101]
    for values, url in (({"mdl": {"replicas": 2}}, None), (MATRIX["production"], "https://rest.example.com")):
        found = parsed(run("template", "t", values=values).stdout)
        (workload,) = (one for one in found if one["metadata"]["name"] == "t-tapeline-scp" and "template" in one.get("spec", {}))
        told = environment(workload["spec"]["template"])
        assert (told.get("SCP_REST_URL"), told.get("SCP_PRIVATE_HOSTS")) == (url, None)
        assert service not in {(one["kind"], one["metadata"]["name"]) for one in found}


def test_clients_have_time_to_leave_a_data_service() -> None:
    """Endpoints forget the pod (preStop), clients are sent off (WDS_DRAIN_S), and only then the grace period is over."""
    spec = pods("minimal")["wds"]["spec"]
    env = environment(pods("minimal")["wds"])
    pause = re.search(r"sleep\((\d+)\)", spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pause
    assert int(pause[1]) + float(env["WDS_DRAIN_S"]) < spec["terminationGracePeriodSeconds"]


@CASES
def test_queues_have_replicas_where_the_chart_makes_three_nodes(case: str) -> None:
    """Every component is told the same type: quorum with the operator's cluster of three, classic with one node."""
    wanted = "quorum" if MATRIX[case].get("rabbitmq", {}).get("mode") == "operator" else "classic"
    told = {
        variable["value"]
        for pod in pods(case).values()
        for container in pod["spec"]["containers"]
        for variable in container.get("env", [])
        if variable["name"] == "MDQ_QUEUE_TYPE"
    }
    assert told == {wanted}


def test_the_type_of_the_queues_may_be_chosen() -> None:
    """A cluster of two has no third node, and an own server's type is the operator's to know."""
    for values, wanted in (
        ({"mode": "operator", "replicas": 1}, "classic"),
        ({"mode": "operator", "queueType": "classic"}, "classic"),
        ({"mode": "external", "urlSecret": {"name": "mq"}, "queueType": "quorum"}, "quorum"),
    ):
        manifest = run("template", "t", "--namespace", "n", values={"rabbitmq": values}).stdout
        assert set(re.findall(r'name: MDQ_QUEUE_TYPE, value: "(\w+)"', manifest)) == {wanted}


@CASES
def test_scaling_stays_within_its_bounds(case: str) -> None:
    """Never more processors than partitions; budgets exist only where a pod may go."""
    partitions = MATRIX[case].get("partitions", 8)
    for one in of_kind(case, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = one["spec"]
        least, most = (spec.get(f"{of}Replicas") or spec.get(f"{of}ReplicaCount") for of in ("min", "max"))
        assert 1 <= least <= most
        if one["metadata"]["name"].endswith("-mdp"):
            assert most <= partitions
            deployment = next(d for d in of_kind(case, "Deployment") if d["metadata"]["name"] == one["metadata"]["name"])
            assert "replicas" not in deployment["spec"], "an upgrade would undo what the scaler did"
    for one in of_kind(case, "PodDisruptionBudget"):
        assert one["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"mdp": {"replicas": 9}}, "9 processors for 8 partitions"),
        ({"mdp": {"restUrl": "https://rest.example.com"}}, "set mdl.apiKeySecret.name"),
        ({"mdp": {"autoscaling": {"enabled": True, "maxReplicas": 9}}}, "9 processors for 8 partitions"),
        ({"wds": {"drainSeconds": 20}}, "/wds/drainSeconds"),
        ({"wds": {"replica": 3}}, "/wds"),
        ({"scp": {"replicas": 2}}, "needs PostgreSQL"),
        ({"scp": {"publicUrl": "http://desk.example.com"}}, "/scp/publicUrl"),
        ({"ingress": {"enabled": True, "host": "desk.example.com"}}, "https only"),
        ({"rabbitmq": {"mode": "external"}}, "rabbitmq.urlSecret.name"),
        ({"redis": {"mode": "cluster"}}, "/redis/mode"),
        ({"oms": {"enabled": True, "database": {"name": "x"}}}, "needs engine.enabled"),
        ({"mdl": {"feed": "engine"}}, "set engine.enabled"),
        ({"engine": {"enabled": True, "replication": "sync"}}, "takes no command"),
        ({"engine": {"enabled": True, "standby": {"leader": "standby"}}}, "needs engine.standby.enabled"),
        ({"mdp": {"extraMounts": [{"path": "/etc/x"}]}}, "one of secret and configMap"),
        ({"extraEnv": {"ADMIN_TOKEN": "hunter2"}}, "/extraEnv"),
        ({"partitions": "many"}, "/partitions"),
    ],
)
def test_bad_values_say_what_is_wrong(values: dict[str, Any], says: str) -> None:
    """The schema names the path, the templates the value to set."""
    done = run("template", "t", values=values, check=False)
    assert done.returncode != 0
    assert says in done.stderr.replace("- at ", "").replace(".", "/") or says in done.stderr


def test_names_are_those_of_the_release() -> None:
    """Two releases live in one namespace."""
    assert "name: t-tapeline-mdl" in rendered("minimal")


def test_the_readme_is_made_of_the_values() -> None:
    """`python -m tests.helm.readme --write` after a change of values.yaml."""
    assert (CHART / "README.md").read_text() == readme()


def test_the_schema_knows_every_value_and_no_other() -> None:
    """What values.yaml offers can be set, and what cannot be set is not in the schema."""

    def paths(values: dict[str, Any], schema: dict[str, Any], at: str = "") -> set[str]:
        found = set()
        for name, value in values.items():
            inner = schema["properties"].get(name)
            assert inner is not None, f"{at}{name} is not in values.schema.json"
            found.add(f"{at}{name}")
            if isinstance(value, dict) and "properties" in inner:
                found |= paths(value, inner, f"{at}{name}.")
        assert schema["properties"].keys() - values.keys() <= {"global"}, f"{at}: the schema has more"
        return found

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert "mdp.autoscaling.keda.messages" in paths(values, json.loads((CHART / "values.schema.json").read_text()))


def test_the_originals_app_is_served_by_both_or_by_neither() -> None:
    """One value switches stream and page, and its path goes to the data service; off, there is no such path."""
    site = {"enabled": True, "host": "desk.example.com", "tlsSecret": "t"}
    for on in (True, False):
        found = parsed(run("template", "t", values={"ingress": site, "wds": {"compat": on}}).stdout)
        given = [
            {one["name"]: one.get("value") for one in made["spec"]["template"]["spec"]["containers"][0]["env"]}
            for made in found
            if made["kind"] in ("Deployment", "StatefulSet")
            and made["metadata"]["labels"]["app.kubernetes.io/component"] in ("wds", "scp")
        ]
        assert [env["WDS_COMPAT"] for env in given] == [str(on).lower()] * 2
        (ingress,) = [one for one in found if one["kind"] == "Ingress"]
        paths = {path["path"]: path["backend"]["service"]["name"] for path in ingress["spec"]["rules"][0]["http"]["paths"]}
        assert (paths.get("/ws"), paths["/v1/"]) == ("t-tapeline-wds" if on else None, "t-tapeline-wds")

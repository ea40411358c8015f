"""The chart: what it renders is valid, hangs together, and lets nobody do more than they must."""

import copy
import re

import kubernetes_validate
import pytest
import yaml

from tests.deploy.rendering import (
    CHART,
    ROOT,
    VERSIONS,
    Refused,
    findings,
    objects,
    render,
    validate,
)

REDIS = {"enabled": True, "podSelector": {"app": "redis"}, "caSecret": "redis-ca"}
FULL = {
    "secrets": {"apiKeyFile": {"name": "keys"}},
    "nameOverride": "llm",
    "tls": {"certManager": {"enabled": True}},
    "redis": REDIS,
    "model": {"path": "/models/m", "volume": {"persistentVolumeClaim": {"claimName": "models"}}},
    "settings": {"max_running": 16, "kv_disk_bytes": 1 << 35, "served_model_name": ["m", "n"]},
    "drainTimeoutS": 120,
    "imagePullSecrets": [{"name": "registry"}],
    "gateway": {
        "autoscaling": {"enabled": True},
        "podAnnotations": {"a": "b"},
        "service": {"type": "LoadBalancer", "annotations": {"c": "d"}},
    },
    "worker": {
        "autoscaling": {
            "enabled": True,
            "maxReplicas": 6,
            "tokensPerWorker": 2_000_000,  # which Go would write as 2e+06
            "labels": {"service": "llm-gateway"},
        },
        "cache": {"size": "20Gi", "storageClassName": "fast"},
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "32Gi"}},
    },
    "networkPolicy": {
        "clients": [{"namespaceSelector": {"matchLabels": {"team": "chat"}}}],
        "workerEgress": [{"ports": [{"protocol": "TCP", "port": 443}]}],
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "keySecret": {"name": "penstock", "key": "scrape"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
    },
}
CASES = {
    "defaults": {},
    "full": FULL,
    "redis": {"redis": {"enabled": True}},
    "no policy": {"networkPolicy": {"enabled": False}},
    "no pause": {"gateway": {"preStopS": 0}, "drainTimeoutS": 0},
}
each_case = pytest.mark.parametrize("values", CASES.values(), ids=CASES)


@pytest.mark.parametrize("version", VERSIONS)
@each_case
def test_what_is_rendered_is_valid(values, version):
    """Strictly, of two versions of Kubernetes."""
    made = objects(values)
    validate(made, version)
    kinds = {each["kind"] for each in made}
    assert {"Deployment", "StatefulSet", "Service", "PodDisruptionBudget"} <= kinds


def test_the_validator_sees_a_typo():
    """Else the test above proves nothing."""
    made = objects()
    deployment = copy.deepcopy(made.one("Deployment", "penstock-gateway"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["readinesProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError):
        validate([deployment], VERSIONS[0])


def test_helm_finds_nothing_to_say():
    """Its linter, but for advice."""
    assert not findings()


@pytest.mark.parametrize(
    "values",
    [
        {"gateways": {}},
        {"gateway": {"replica": 3}},
        {"gateway": {"replicas": 0}},
        {"gateway": {"replicas": "two"}},
        {"gateway": {"resources": {"limits": {"memory": "one gigabyte"}}}},
        {"gateway": {"service": {"type": "ExternalName"}}},
        {"settings": {"max_runing": 3}},
        {"settings": {"max_running": "many"}},
        {"settings": {"worker": ["elsewhere:8010"]}},
        {"settings": {"api_key": ["sk-in-a-config-map"]}},
        {"settings": {"engine": "magic"}},
        {"redis": {"enabled": "yes"}},
        {"redis": {"url": "redis://:password@redis"}},
        {"model": {"path": "/models/m"}},
        {"worker": {"cache": {"size": "twenty"}}},
        {"model": {"path": "/etc"}},
        {"secrets": {"apiKey": {"name": "Not A Name", "key": "k"}}},
        {"tls": {"certManager": {"duration": "a year"}}},
        {"drainTimeoutS": -1},
        {"nameOverride": "Penstock_1"},
        {"networkPolicy": {"clients": [{}]}},
        {"worker": {"autoscaling": {"tokensPerWorker": 0}}},
    ],
    ids=str,
)
def test_wrong_values_are_refused(values):
    """Before anything is sent to a cluster."""
    with pytest.raises(Refused):
        render(values)


@each_case
def test_pods_have_no_more_rights_than_they_need(values):
    """The restricted Pod Security Standard, a root that cannot be written, and no token."""
    made = objects(values)
    (account,) = made.of("ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    pods = list(made.pods())
    assert len(pods) == 2
    assert {pod["serviceAccountName"] for _, pod, _ in pods} == {account["metadata"]["name"]}
    for owner, pod, _ in [*pods, *made.jobs()]:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        writable = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
        cache = ["/cache"] if owner["spec"].get("volumeClaimTemplates") else []
        assert [mount["mountPath"] for mount in writable] == ["/tmp", *cache]


@each_case
def test_volumes_are_there_and_secrets_only_referred_to(values):
    """Every mount has a volume, and no Secret is made."""
    made = objects(values)
    assert not made.of("Secret")
    for owner, pod, _ in made.pods():
        (container,) = pod["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claims = owner["spec"].get("volumeClaimTemplates", [])
        assert bool(claims) is (values is FULL and owner["kind"] == "StatefulSet")
        assert mounted == {
            *(volume["name"] for volume in pod["volumes"]),
            *(claim["metadata"]["name"] for claim in claims),
        }
        secret = [entry for entry in container["env"] if "secretKeyRef" in str(entry)]
        names = {entry["name"] for entry in secret}
        assert "PENSTOCK_WORKER_TOKEN" in names
        assert ("PENSTOCK_REDIS" in names) is bool(values.get("redis"))
        (named,) = [v["secret"]["secretName"] for v in pod["volumes"] if v["name"] == "tls"]
        assert named in {"penstock-gateway-tls", "penstock-worker-tls"}


@each_case
def test_a_pod_is_given_longer_than_it_drains(values):
    """The pause before it, the drain, and the 15 s that docs/operations.md asks for."""
    for made, pod, _ in objects(values).pods():
        (container,) = pod["containers"]
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {"seconds": 0})
        drain_s = values.get("drainTimeoutS", 30)
        assert pod["terminationGracePeriodSeconds"] == pause["seconds"] + drain_s + 15
        assert (pause["seconds"] > 0) is (
            made["kind"] == "Deployment" and values.get("gateway", {}).get("preStopS", 5) > 0
        )


@each_case
def test_selectors_and_ports_meet(values):
    """Services, budgets and autoscalers find what they are for."""
    made = objects(values)
    pods = {owner["metadata"]["name"]: (spec, labels) for owner, spec, labels in made.pods()}
    for owner, _, labels in made.pods():
        assert owner["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for service in made.of("Service"):
        spec, labels = pods[service["metadata"]["name"]]
        assert service["spec"]["selector"].items() <= labels.items()
        (container,) = spec["containers"]
        known = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= known
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            for how in ("httpGet", "tcpSocket"):
                if how in container.get(probe, {}):
                    assert container[probe][how]["port"] in known
    assert len(made.of("PodDisruptionBudget")) == 2
    for budget in made.of("PodDisruptionBudget"):
        _, labels = pods[budget["metadata"]["name"]]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for scaler in made.of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        owner = made.one(target["kind"], target["name"])
        assert "replicas" not in owner["spec"], "two would set it"


@each_case
def test_gateways_know_every_worker_that_there_can_be(values):
    """By the name that its pod has, and that the certificate covers."""
    made = objects(values)
    (workers,) = made.of("StatefulSet")
    service = made.one("Service", workers["spec"]["serviceName"])
    assert service["spec"]["clusterIP"] == "None"
    (gateways,) = made.of("Deployment")
    (container,) = gateways["spec"]["template"]["spec"]["containers"]
    entries = {entry["name"]: entry for entry in container["env"]}
    assert list(entries).index("POD_NAMESPACE") < list(entries).index("PENSTOCK_WORKER")
    scaler = made.of("HorizontalPodAutoscaler")
    count = scaler[-1]["spec"]["maxReplicas"] if scaler else workers["spec"]["replicas"]
    name, port = workers["metadata"]["name"], service["spec"]["ports"][0]["port"]
    below = f"{service['metadata']['name']}.$(POD_NAMESPACE).svc"
    assert entries["PENSTOCK_WORKER"]["value"].split(",") == [
        f"{name}-{index}.{below}:{port}" for index in range(count)
    ]
    for certificate in made.of("Certificate"):
        if certificate["metadata"]["name"] == name:
            wildcard = f"*.{below}".replace("$(POD_NAMESPACE)", "penstock")
            assert certificate["spec"]["dnsNames"] == [wildcard]
            assert certificate["spec"]["usages"] == ["digital signature", "server auth"]


def test_certificates_are_of_one_ca_and_land_where_pods_look():
    """The CA signs both sides, each for its own use."""
    made = objects(FULL)
    secrets = {each["spec"]["secretName"] for each in made.of("Certificate")}
    mounted = {
        volume["secret"]["secretName"]
        for _, pod, _ in made.pods()
        for volume in pod["volumes"]
        if volume["name"] == "tls"
    }
    assert mounted < secrets
    issuers = {each["metadata"]["name"] for each in made.of("Issuer")}
    assert {each["spec"]["issuerRef"]["name"] for each in made.of("Certificate")} == issuers
    usages = made.one("Certificate", "llm-gateway")["spec"]["usages"]
    assert usages == ["digital signature", "client auth"]


def allowed(made, source, target, port):
    """Whether the policies let pods with these labels reach those at a port."""

    def selects(selector, labels):
        return selector.get("matchLabels", {}).items() <= labels.items()

    def passes(labels, direction, peer, side):
        rules = [
            rule
            for policy in made.of("NetworkPolicy")
            if selects(policy["spec"]["podSelector"], labels)
            and direction.capitalize() in policy["spec"]["policyTypes"]
            for rule in policy["spec"].get(direction, ())
        ]
        held = any(
            selects(policy["spec"]["podSelector"], labels)
            and direction.capitalize() in policy["spec"]["policyTypes"]
            for policy in made.of("NetworkPolicy")
        )
        return not held or any(
            port in [each["port"] for each in rule["ports"]]
            and (
                side not in rule
                or any(selects(p["podSelector"], peer) for p in rule[side] if "podSelector" in p)
            )
            for rule in rules
        )

    return passes(target, "ingress", source, "from") and passes(source, "egress", target, "to")


def test_only_gateways_reach_workers_and_only_both_reach_redis():
    """As Kubernetes reads the policies."""
    made = objects({"redis": REDIS})
    gateway, worker = (labels for _, _, labels in made.pods())
    redis, stranger = {"app": "redis"}, {"app": "stranger"}
    assert gateway["app.kubernetes.io/component"] == "gateway"
    assert allowed(made, gateway, worker, "engine")
    assert not allowed(made, stranger, worker, "engine")
    assert not allowed(made, worker, worker, "engine")
    assert allowed(made, gateway, redis, 6379)
    assert allowed(made, worker, redis, 6379)
    (setup,) = (labels for _, _, labels in made.jobs())
    assert allowed(made, setup, redis, 6379)
    assert not allowed(made, setup, worker, "engine")
    assert not allowed(made, stranger, redis, 6379)
    assert not allowed(made, gateway, stranger, 6379)
    assert not allowed(made, worker, stranger, 443)
    assert allowed(made, stranger, gateway, "http")
    other = {**gateway, "app.kubernetes.io/instance": "another release"}
    assert not allowed(made, other, worker, "engine")


def test_redis_is_set_up_first_by_another_user_than_the_product():
    """By a hook, which needs nothing that the release brings."""
    made = objects({"redis": REDIS})
    ((job, pod, labels),) = made.jobs()
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert "serviceAccountName" not in pod
    assert not {"configMap"} & {key for volume in pod["volumes"] for key in volume}
    (container,) = pod["containers"]
    assert container["args"] == ["redis-setup"]
    ((key, source),) = ((e["name"], e["valueFrom"]["secretKeyRef"]) for e in container["env"])
    assert key == "PENSTOCK_REDIS"
    for _, other, others in made.pods():
        entries = {entry["name"]: entry for entry in other["containers"][0]["env"]}
        assert entries["PENSTOCK_REDIS"]["valueFrom"]["secretKeyRef"] != source
        assert labels != others
    assert not list(objects({"redis": {"enabled": True, "setup": {"enabled": False}}}).jobs())


def test_with_redis_a_worker_says_where_it_is():
    """By the address that gateways have for it already, so that nobody takes it for two."""
    made = objects({"redis": REDIS})
    entries = {
        owner["kind"]: {entry["name"]: entry for entry in pod["containers"][0]["env"]}
        for owner, pod, _ in made.pods()
    }
    said = entries["StatefulSet"]["PENSTOCK_ADVERTISE"]["value"]
    known = entries["Deployment"]["PENSTOCK_WORKER"]["value"].split(",")
    assert known == [said.replace("$(POD_NAME)", f"penstock-worker-{n}") for n in (0, 1)]
    order = list(entries["StatefulSet"])
    assert max(map(order.index, ("POD_NAME", "POD_NAMESPACE"))) < order.index("PENSTOCK_ADVERTISE")


def test_keys_may_come_in_a_file_instead():
    """Then no other key is asked for."""
    made = objects({"secrets": {"apiKeyFile": {"name": "keys", "key": "k.yaml"}}})
    (gateway,) = [pod for owner, pod, _ in made.pods() if owner["kind"] == "Deployment"]
    (container,) = gateway["containers"]
    entries = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert entries["PENSTOCK_API_KEY_FILE"] == "/etc/penstock/keys/k.yaml"
    assert "PENSTOCK_API_KEY" not in entries
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts["/etc/penstock/keys"] == "keys"
    (volume,) = [each for each in gateway["volumes"] if each["name"] == "keys"]
    assert volume["secret"]["secretName"] == "keys"


def test_clients_can_be_named():
    """Then others do not reach the gateways."""
    made = objects({"networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"a": "b"}}}]}})
    gateway = next(labels for _, _, labels in made.pods())
    assert allowed(made, {"a": "b"}, gateway, "http")
    assert not allowed(made, {"a": "c"}, gateway, "http")


def test_settings_reach_both_parts_and_a_change_rolls_them():
    """One file, mounted by both, whose digest is in the template of the pods."""

    def digest(values):
        made = objects(values)
        return {
            each["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
            for each, _, _ in made.pods()
        }

    (config,) = [each for each in objects(FULL).of("ConfigMap") if "penstock.yaml" in each["data"]]
    assert yaml.safe_load(config["data"]["penstock.yaml"]) == {
        **FULL["settings"],
        "model_dir": "/models/m",
        "drain_timeout_s": 120,
        "metrics_public": False,
    }
    before, after = digest({}), digest({"settings": {"max_running": 8}})
    assert len(before) == len(after) == 1
    assert before != after


def test_two_releases_share_nothing():
    """Neither a name nor a pod."""
    here, there = objects(name="one"), objects(name="two")
    names = [{(each["kind"], each["metadata"]["name"]) for each in made} for made in (here, there)]
    assert not names[0] & names[1]
    for owner, _, _ in here.pods():
        selector = owner["spec"]["selector"]["matchLabels"]
        assert not any(selector.items() <= labels.items() for _, _, labels in there.pods())


def test_rules_and_dashboard_arrive_as_they_are():
    """Their own templates are for Prometheus and Grafana, not for Helm."""
    made = objects(FULL)
    rules = made.one("PrometheusRule", "llm")["spec"]
    assert rules == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    board = made.one("ConfigMap", "llm-dashboard")["data"]["penstock.json"]
    assert board.strip() == (CHART / "files" / "dashboard.json").read_text().strip()


def test_workers_scale_by_tokens_in_flight():
    """The metric that the adapter of files/ tells, averaged over the workers."""
    made = objects(FULL)
    (metric,) = made.one("HorizontalPodAutoscaler", "llm-worker")["spec"]["metrics"]
    told = yaml.safe_load((CHART / "files" / "adapter.yaml").read_text())["rules"]["external"]
    assert metric["external"]["metric"]["name"] in {rule["name"]["as"] for rule in told}
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "2000000"}


def test_the_page_shows_values_that_the_chart_takes():
    """And makes the Secrets that the chart asks for."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    for version in VERSIONS:
        validate(objects(yaml.safe_load(shown)), version)
    for path, value in re.findall(r"--set ([\w.]+)=(\w+)", page):
        values = yaml.safe_load(value)
        for word in reversed(path.split(".")):
            values = {word: values}
        assert objects(values).of("Certificate")
    asked = {
        (entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"])
        for _, pod, _ in objects().pods()
        for entry in pod["containers"][0]["env"]
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    made = re.findall(r"create secret generic penstock \\\n((?:.*--from-literal.*\n)+)", page)
    keys = re.findall(r"--from-literal=([a-z-]+)=", "".join(made))
    assert asked == {("penstock", key) for key in keys}
    for name in ("penstock-worker-tls", "penstock-gateway-tls"):
        assert f"kubectl create secret generic {name} --from-file=" in page

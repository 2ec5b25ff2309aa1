"""The Helm chart, rendered by Helm's own engine and read by Kubernetes' schemas; no cluster is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from crossrag.config import load_settings
from crossrag.errors import ConfigError
from tests.server.conftest import listening, made

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "crossrag"
KEYS: dict[str, Any] = {"existingSecret": "keys"}
EMBEDDED = {"qdrant": {"enabled": False}, "persistence": {"enabled": True}, "replicaCount": 1}
CASES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "embedded": EMBEDDED,
    "foreign qdrant": {"qdrant": {"enabled": False}, "qdrantUrl": "https://q.example:6333"},
    "everything": {
        "ingest": {"enabled": True, "documentsClaim": "documents", "arguments": ["--no-prune"]},
        "autoscaling": {"enabled": True},
        "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
        "ingress": {"enabled": True, "host": "ask.example", "tlsSecret": "tls", "className": "nginx"},
        "networkPolicy": {"from": [{"podSelector": {"matchLabels": {"app": "front"}}}]},
        "settings": "[reranking]\ntop_k = 3\n",
        "nodeSelector": {"disk": "ssd"},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "keda": {"autoscaling": {"enabled": True, "kind": "keda"}},
    "ray": {
        "ray": {"enabled": True, "worker": {"gpus": 1}},
        "ingest": {"enabled": True, "documentsClaim": "d"},
        "ingress": {"enabled": True, "host": "ask.example"},
        "monitoring": {"enabled": True},
    },
    "ray that stays as it is": {"ray": {"enabled": True, "worker": {"minReplicas": 2, "maxReplicas": 2}}},
}
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "RayService"}
"""Kinds of operators, for which Kubernetes has no schema."""


@pytest.fixture(scope="module")
def chart() -> Iterator[helm_python.Chart]:
    with helm_python.Chart.load(CHART) as loaded:
        yield loaded


def rendered(chart: helm_python.Chart, values: dict[str, Any], name: str = "demo") -> list[dict[str, Any]]:
    """All objects of a release."""
    files = chart.render({**KEYS, **values}, name=name, namespace="prod")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The spec of every pod, wherever it stands."""
    for one in objects:
        spec = one.get("spec", {})
        if one["kind"] == "Pod":
            yield spec
        elif one["kind"] == "Deployment":
            yield spec["template"]["spec"]
        elif one["kind"] == "CronJob":
            yield spec["jobTemplate"]["spec"]["template"]["spec"]
        elif one["kind"] == "RayService":
            cluster = spec["rayClusterConfig"]
            yield cluster["headGroupSpec"]["template"]["spec"]
            yield from (group["template"]["spec"] for group in cluster["workerGroupSpecs"])


def test_helm_finds_nothing_wrong() -> None:
    said = helm_python.lint(CHART, KEYS)
    assert said["errors"] == []
    # The chart of Qdrant is fetched by `helm dependency update`.
    assert {one["error"].partition(":")[0] for one in said["messages"]} <= {
        "icon is recommended",
        "chart directory is missing these dependencies",
    }


@pytest.mark.parametrize("case", CASES)
def test_every_object_is_one_of_kubernetes(chart: helm_python.Chart, case: str) -> None:
    objects = rendered(chart, CASES[case])
    for one in objects:
        if one["kind"] not in FOREIGN:
            kubernetes_validate.validate(one, "1.29", strict=True)
        if one["kind"] == "RayService":
            made = {"apiVersion": "v1", "kind": "Service", **one["spec"]["serveService"]}
            kubernetes_validate.validate(made, "1.29", strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    assert all(len(name) <= 63 for _, name in names)


@pytest.mark.parametrize("case", CASES)
def test_no_pod_may_do_more_than_it_needs(chart: helm_python.Chart, case: str) -> None:
    found = list(pods(rendered(chart, CASES[case])))
    assert found
    for pod in found:
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            # Where the root cannot be written, what is written lies on volumes.
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounts <= {volume["name"] for volume in pod.get("volumes", [])}


@pytest.mark.parametrize("case", CASES)
def test_what_selects_meets_what_is_selected(chart: helm_python.Chart, case: str) -> None:
    objects = rendered(chart, CASES[case])
    services = of_kind(objects, "Service")
    templates = [one["spec"]["template"] for one in of_kind(objects, "Deployment")]
    if not templates:
        # KubeRay makes it, and selects.
        assert services == []
        return
    [service] = services
    selector = service["spec"]["selector"]
    for template in templates:
        assert selector.items() <= template["metadata"]["labels"].items()
        ports = [port["containerPort"] for port in template["spec"]["containers"][0]["ports"]]
        assert service["spec"]["ports"][0]["targetPort"] in ports
    # A rolling update must not pick up pods that ingest or test.
    assert selector["app.kubernetes.io/component"] == "server"


@pytest.mark.parametrize("case", CASES)
def test_the_environment_is_settings(chart: helm_python.Chart, case: str) -> None:
    for pod in pods(rendered(chart, CASES[case])):
        for container in pod["containers"]:
            entries = container.get("env", [])
            environ = {one["name"]: one.get("value", "some-key") for one in entries}
            assert all("valueFrom" in one for one in entries if "KEY" in one["name"])
            loaded = load_settings(environ=environ, directory=Path("/nowhere"))
            assert loaded.settings.qdrant.url == environ.get("CROSSRAG_QDRANT__URL")


def service_links(service: str, port: int, name: str) -> dict[str, str]:
    """What Kubernetes puts into the environment of pods in the namespace of a Service."""
    own, url = service.upper().replace("-", "_"), f"tcp://10.96.7.8:{port}"
    return {
        f"{own}_SERVICE_HOST": "10.96.7.8",
        f"{own}_SERVICE_PORT": str(port),
        f"{own}_SERVICE_PORT_{name.upper()}": str(port),
        f"{own}_PORT": url,
        f"{own}_PORT_{port}_TCP": url,
        f"{own}_PORT_{port}_TCP_PROTO": "tcp",
        f"{own}_PORT_{port}_TCP_PORT": str(port),
        f"{own}_PORT_{port}_TCP_ADDR": "10.96.7.8",
    }


@pytest.mark.parametrize("case", ["everything", "ray"])
def test_a_release_may_have_the_name_of_the_chart(chart: helm_python.Chart, case: str) -> None:
    objects = rendered(chart, CASES[case], name="crossrag")
    links = service_links("crossrag", 80, "http") | service_links("crossrag-qdrant", 6333, "rest")
    assert links["CROSSRAG_QDRANT_SERVICE_HOST"]
    for pod in pods(objects):
        assert pod["enableServiceLinks"] is False
        # And where another chart's pod holds the image, with the links.
        for container in pod["containers"]:
            own = {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}
            loaded = load_settings(environ=links | own, directory=Path("/nowhere"))
            assert loaded.settings.qdrant.url == own.get("CROSSRAG_QDRANT__URL")


def test_the_servers_own_settings_are_mounted(chart: helm_python.Chart, tmp_path: Path) -> None:
    objects = rendered(chart, CASES["everything"])
    [settings] = [one for one in of_kind(objects, "ConfigMap") if "crossrag.toml" in one["data"]]
    file = tmp_path / "crossrag.toml"
    file.write_text(settings["data"]["crossrag.toml"], encoding="utf-8")
    assert load_settings(config_file=file, environ={}).settings.reranking.top_k == 3
    [deployment] = of_kind(objects, "Deployment")
    before = deployment["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
    [other] = of_kind(rendered(chart, {**CASES["everything"], "settings": ""}), "Deployment")
    assert other["spec"]["template"]["metadata"]["annotations"]["checksum/settings"] != before


def test_it_scales_by_seconds_of_work_that_wait(chart: helm_python.Chart) -> None:
    objects = rendered(chart, CASES["everything"])
    [scaler] = of_kind(objects, "HorizontalPodAutoscaler")
    [metric] = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "crossrag_queue_seconds"
    [deployment] = of_kind(objects, "Deployment")
    assert "replicas" not in deployment["spec"]
    [keda] = of_kind(rendered(chart, CASES["keda"]), "ScaledObject")
    query = keda["spec"]["triggers"][0]["metadata"]["query"]
    assert query == 'sum(crossrag_queue_seconds{namespace="prod",service="demo-crossrag"})'


def test_requests_end_before_a_pod_does(chart: helm_python.Chart) -> None:
    [deployment] = of_kind(rendered(chart, {}), "Deployment")
    spec = deployment["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert "time.sleep(5)" in container["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert pod["terminationGracePeriodSeconds"] > 5 + load_settings(environ={}).settings.server.grace_seconds
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    # A server answers this while its models load, and while its Qdrant is late.
    assert container["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


@pytest.mark.parametrize("key", ["a-key", None])
def test_helm_test_finds_a_server_that_is_ready_and_closed(
    chart: helm_python.Chart, tmp_path: Path, key: str | None
) -> None:
    [pod] = of_kind(rendered(chart, {}), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    command = pod["spec"]["containers"][0]["command"]
    assert (command[0], command[-1]) == ("python", "http://demo-crossrag:80")
    with listening(made(tmp_path, api_key=key)) as running:
        done = subprocess.run(
            [sys.executable, *command[1:-1], running.url], capture_output=True, text=True, check=False
        )
    assert (done.returncode == 0) is (key is not None), done.stderr
    assert "ready" in done.stdout


def test_on_ray_the_service_is_the_operators_under_the_same_name(chart: helm_python.Chart) -> None:
    [plain] = of_kind(rendered(chart, {}), "Service")
    objects = rendered(chart, {**CASES["ray"], "service": {"port": 81, "annotations": {"a": "b"}}})
    assert of_kind(objects, "Service") == []
    [ray] = of_kind(objects, "RayService")
    service = ray["spec"]["serveService"]
    assert service["metadata"]["name"] == plain["metadata"]["name"] == "demo-crossrag"
    assert service["metadata"]["annotations"] == {"a": "b"}
    assert "selector" not in service["spec"], "KubeRay's, which knows the cluster that answers"
    [port] = service["spec"]["ports"]
    # KubeRay takes the port that has the name of the head's.
    head = ray["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    own = {one["name"]: one["containerPort"] for one in head["ports"]}
    assert (port["port"], port["targetPort"]) == (81, own[port["name"]])
    [ingress] = of_kind(objects, "Ingress")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "demo-crossrag", "port": {"number": 81}}
    [pod] = of_kind(objects, "Pod")
    assert pod["spec"]["containers"][0]["command"][-1] == "http://demo-crossrag:81"
    [monitor] = of_kind(objects, "ServiceMonitor")
    assert monitor["spec"]["endpoints"][0]["port"] == port["name"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_on_ray_only_a_head_that_asks_for_workers_may_ask(chart: helm_python.Chart) -> None:
    given = {"podLabels": {"team": "search"}, "podAnnotations": {"inject": "no"}}

    def of(case: str, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        objects = rendered(chart, {**CASES[case], **given, **more})
        [ray] = of_kind(objects, "RayService")
        cluster = ray["spec"]["rayClusterConfig"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        for group in groups:
            metadata = group["template"]["metadata"]
            assert metadata["labels"].items() > given["podLabels"].items()
            assert metadata["annotations"] == given["podAnnotations"]
        found = [group["template"]["spec"] for group in groups]
        for pod in found[1:]:
            assert pod["automountServiceAccountToken"] is False
        return cluster, found, of_kind(objects, "NetworkPolicy")

    cluster, (head, worker), policies = of("ray", ray={"enabled": True, "apiServerCidr": "192.0.2.7/32"})
    assert cluster["enableInTreeAutoscaling"] is True
    assert "serviceAccountName" not in head
    assert "automountServiceAccountToken" not in head
    assert worker["serviceAccountName"] == "demo-crossrag"
    beside = cluster["autoscalerOptions"]
    assert beside["securityContext"] == head["containers"][0]["securityContext"]
    assert {one["name"] for one in beside["volumeMounts"]} <= {one["name"] for one in head["volumes"]}
    everybody, heads = policies
    assert heads["spec"]["podSelector"]["matchLabels"]["ray.io/node-type"] == "head"
    [rule] = heads["spec"]["egress"]
    assert rule["to"] == [{"ipBlock": {"cidr": "192.0.2.7/32"}}]
    outwards = [port["port"] for one in everybody["spec"]["egress"] for port in one.get("ports", [])]
    assert not {443, 6443} & set(outwards)

    cluster, (head, _), policies = of("ray that stays as it is")
    assert cluster["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in cluster
    assert head["automountServiceAccountToken"] is False
    assert len(policies) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"autoscaling": {"enabled": True}}, "monitoring.enabled is false"),
        (CASES["everything"], "Prometheus has to be among them"),
        (CASES["ray"], "set ray.operatorNamespace"),
        ({}, None),
    ],
)
def test_what_may_not_work_is_warned_of(
    chart: helm_python.Chart, values: dict[str, Any], said: str | None
) -> None:
    files = chart.render({**KEYS, **values}, name="demo", namespace="prod")
    [notes] = [text for name, text in files.items() if name.endswith("NOTES.txt")]
    assert "helm test demo" in notes
    assert said in notes if said else "WARNING" not in notes


def test_an_ingestion_of_which_files_fail_is_no_failure(chart: helm_python.Chart) -> None:
    [job] = of_kind(rendered(chart, CASES["everything"]), "CronJob")
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][-3:] == ["--allow-failed", "--no-prune", "/documents"]


def test_alerts_and_dashboard_are_the_files(chart: helm_python.Chart) -> None:
    objects = rendered(chart, CASES["everything"])
    [rules] = of_kind(objects, "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    [board] = [one for one in of_kind(objects, "ConfigMap") if "crossrag.json" in one["data"]]
    written = (CHART / "files" / "dashboard.json").read_text(encoding="utf-8")
    assert json.loads(board["data"]["crossrag.json"]) == json.loads(written)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, against pydantic
def test_serve_finds_its_applications(chart: helm_python.Chart) -> None:
    text = '[reranking]\nmodel = "none"   # "quotes": {braces}\n\n[ray]\nembedder_cpus = 7\n'
    [service] = of_kind(rendered(chart, {**CASES["ray"], "settings": text}), "RayService")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert config["http_options"]["port"] == load_settings(environ={}).settings.server.port
    from crossrag.scale import serve

    names = {}
    for one in config["applications"]:
        module, _, function = one["import_path"].partition(":")
        assert module == serve.__name__
        assert callable(getattr(serve, function))
        names[one["name"]] = one["route_prefix"]
        assert one["args"] == {"settings": text}
    made = serve.embedder(config["applications"][0]["args"])._bound_deployment
    assert made.ray_actor_options["num_cpus"] == 7
    assert names == {serve.EMBEDDER: None, serve.RERANKER: None, serve.API: "/"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, against pydantic
def test_the_file_of_serve_holds_without_a_reranker_too(tmp_path: Path) -> None:
    from crossrag.scale import serve

    file = tmp_path / "crossrag.toml"
    file.write_text('[reranking]\nmodel = "none"\n', encoding="utf-8")
    idle = serve.reranker({"config": str(file)})._bound_deployment
    assert idle.name == "Nobody"
    assert idle.ray_actor_options["num_cpus"] == 0
    file.write_text("", encoding="utf-8")
    assert serve.reranker({"config": str(file)})._bound_deployment.name == "RerankerReplica"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"podDisruptionBudget": {"maxUnavailable": 2}}, {"maxUnavailable": 2}),
        ({"ray": {"enabled": True, "worker": {"minReplicas": 3}}}, {"minAvailable": 3}),
        ({"ray": {"enabled": True, "worker": {"minReplicas": 0}}}, None),
        ({"podDisruptionBudget": {"enabled": False}}, None),
        (EMBEDDED, None),
    ],
)
def test_pods_are_taken_away_one_by_one(
    chart: helm_python.Chart, values: dict[str, Any], wanted: dict[str, int] | None
) -> None:
    objects = rendered(chart, values)
    budgets = of_kind(objects, "PodDisruptionBudget")
    found = [{key: value for key, value in one["spec"].items() if key != "selector"} for one in budgets]
    assert found == ([] if wanted is None else [wanted])
    for budget in budgets:
        labels = budget["spec"]["selector"]["matchLabels"].items()
        kinds = ("RayService", "Deployment")
        [server] = [
            one for one in objects if one["kind"] in kinds and "ingest" not in one["metadata"]["name"]
        ]
        texts = json.dumps(server)
        assert all(json.dumps({key: value})[1:-1] in texts for key, value in labels)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray, against pydantic
def test_on_ray_nobody_comes_in_without_a_key(chart: helm_python.Chart) -> None:
    [service] = of_kind(rendered(chart, CASES["ray"]), "RayService")
    assert yaml.safe_load(service["spec"]["serveConfigV2"])["http_options"]["host"] == "0.0.0.0"  # noqa: S104
    from crossrag.scale import serve

    # A Secret without the entry that counts: the server refuses, as the plain one does.
    for pod in pods([service]):
        for container in pod["containers"]:
            environ = {one["name"]: one["value"] for one in container["env"] if "value" in one}
            settings = load_settings(environ=environ, directory=Path("/nowhere")).settings
            with pytest.raises(ConfigError, match="there is no key"):
                serve.api_of(settings)
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}
    [without] = of_kind(
        rendered(chart, {**CASES["ray"], "ray": {"enabled": True, "tokenAuth": False}}), "RayService"
    )
    assert "authOptions" not in without["spec"]["rayClusterConfig"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"existingSecret": ""}, "does not listen without a key"),
        ({"qdrant": {"enabled": False}}, "the index is a folder of its own"),
        ({"persistence": {"enabled": True}}, "an index folder has one server"),
        ({**EMBEDDED, "autoscaling": {"enabled": True}}, "an index folder has one server"),
        ({"qdrantUrl": "http://q:6333"}, "starts another"),
        ({**EMBEDDED, "ray": {"enabled": True}}, "with ray.enabled the index is on Qdrant"),
        (
            {"ray": {"enabled": True}, "autoscaling": {"enabled": True}},
            "autoscaling is of servers without Ray",
        ),
        ({"ray": {"apiServerCidr": "api.example"}}, "apiServerCidr"),
        ({**EMBEDDED, "ingest": {"enabled": True, "documentsClaim": "d"}}, "ingest.enabled writes to Qdrant"),
        ({"ingest": {"enabled": True}}, "names no claim"),
        ({"ingress": {"enabled": True}}, "names no host"),
        ({"monitoring": {"enabled": True}, "existingSecret": "", "settings": "sha256"}, "needs a key"),
        ({"replicas": 3}, "replicas"),
        ({"autoscaling": {"kind": "other"}}, "kind"),
    ],
)
def test_what_cannot_work_is_refused(chart: helm_python.Chart, values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(said)):
        rendered(chart, values)


def test_the_chart_wants_a_qdrant_that_crossrag_can_use() -> None:
    from crossrag import __version__
    from crossrag.stores.qdrant_connection import OLDEST_SERVER

    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    [qdrant] = about["dependencies"]
    assert qdrant["version"].startswith(f">={OLDEST_SERVER[0]}.{OLDEST_SERVER[1]}.0 ")
    assert qdrant["condition"] == "qdrant.enabled"
    assert about["appVersion"] == __version__

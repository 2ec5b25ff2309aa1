"""Dashboard, alerts and scaling ask for figures that the server has; compose files and images are closed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from crossrag.config import load_settings
from crossrag.server.observing import Observer
from tests.server.conftest import made

if TYPE_CHECKING:
    from crossrag.server.routing import Router

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy" / "helm" / "crossrag" / "files"
COMPOSE = ROOT / "docker" / "compose.yaml"
DOCKERFILES = ["Dockerfile", "Dockerfile.cuda"]
OF_PROMETHEUS = {"job", "namespace", "service", "instance", "pod"}
"""Labels that whoever asks puts on what it gets."""


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every series that /metrics can have, with its labels, after each figure was used once."""
    service = made(tmp_path_factory.mktemp("figures"))
    observer = Observer(service)
    observer.ended(request_id="r", route="/", method="GET", status=200, seconds=0.1, key="")
    observer.failed("r", ValueError())
    observer.batch(10)
    observer._stages.labels("rerank").observe(0.1)
    observer._degraded.labels("rerank").inc()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(observer.exposition().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    service.close()
    return found


def asked() -> Iterator[tuple[str, str]]:
    """Every expression, with where it stands."""
    for group in yaml.safe_load((FILES / "alerts.yaml").read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


EXPRESSIONS = [pytest.param(text, id=f"{where}-{number}") for number, (where, text) in enumerate(asked())]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions_are_promql_over_figures_that_there_are(text: str, figures: dict[str, set[str]]) -> None:
    text = text.replace("$__rate_interval", "5m").replace("$job", ".*")
    promql_parser.parse(text)
    series = re.findall(r"\b(crossrag_\w+)(?:\{([^}]*)\})?", text)
    assert series
    for name, matchers in series:
        assert name in figures, f"/metrics has no {name}"
        labels = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', matchers))
        assert labels <= figures[name] | OF_PROMETHEUS
    grouped = {name.strip() for by in re.findall(r"\bby\s*\(([^)]*)\)", text) for name in by.split(",")}
    assert grouped <= set().union(*(figures[name] for name, _ in series)) | OF_PROMETHEUS


def test_routes_that_alerts_name_are_there(tmp_path: Path) -> None:
    from crossrag.server.app import create_app

    service = made(tmp_path)
    router: Router = create_app(service).state.router
    for _, text in asked():
        for route in re.findall(r'route="([^"]+)"', text):
            scope = {"type": "http", "method": "POST", "path": route, "headers": [], "query_string": b""}
            matched = router.match(scope)
            assert matched is not None
            assert matched.template == route
    service.close()


def test_panels_do_not_lie_over_each_other() -> None:
    board = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_seconds_of_work_that_wait_are_a_figure(tmp_path: Path) -> None:
    service = made(tmp_path, concurrency=4)
    service.admission.waiting, service.admission.interval = 6, 0.5
    text = Observer(service).exposition().decode()
    service.close()
    assert "crossrag_queue_seconds 3.0" in text


# --- containers


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return loaded


def test_the_compose_file_is_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_services_are_pinned_closed_and_on_the_loopback(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only") is (None if name == "prometheus" else True), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if "build" not in service:
            assert re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", service["image"]), name
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (COMPOSE.parent / volume.partition(":")[0]).is_file(), volume


def test_the_environment_of_services_is_settings(compose: dict[str, Any]) -> None:
    for name in ("crossrag", "serve"):
        given = {key: str(value) for key, value in compose["services"][name]["environment"].items()}
        assert load_settings(environ=given, directory=Path("/nowhere")).settings.store == "qdrant"


def test_prometheus_asks_the_server_with_a_key(compose: dict[str, Any]) -> None:
    file = COMPOSE.parent / "monitoring" / "prometheus.yml"
    [job] = yaml.safe_load(file.read_text(encoding="utf-8"))["scrape_configs"]
    host, _, port = job["static_configs"][0]["targets"][0].partition(":")
    assert int(port) == load_settings(environ={}).settings.server.port
    assert compose["services"][host]["command"][0] == "serve"
    [secret] = compose["services"]["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    assert compose["secrets"][secret] == {"environment": "CROSSRAG_SERVER__API_KEY"}


def test_what_is_exported_for_compose_leaves_the_command_as_it_was() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+)[:}]|^    environment: (\w+)$", text, re.MULTILINE))
    exported = {name for found in asked for name in found if name}
    assert {"QDRANT_API_KEY", "DOCUMENTS"} < exported
    environ = dict.fromkeys(exported, "some-text")
    assert load_settings(environ=environ, directory=Path("/nowhere")).settings.server.api_key is not None


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing_wrong(name: str) -> None:
    command = [str(Path(sys.executable).with_name("hadolint")), str(ROOT / "docker" / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_pinned_and_run_as_nobody_special(name: str) -> None:
    text = (ROOT / "docker" / name).read_text(encoding="utf-8")
    [base] = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert re.search(r":\d+\.\d+\.\d+-", base)
    last = text[text.rindex("\nFROM ") :]
    assert "\nUSER 1000:1000\n" in last
    assert "\nHEALTHCHECK " in last
    assert 'CMD ["serve", "--host", "0.0.0.0"]' in last
    assert not re.search(r"^(ENV|ARG) .*(KEY|SECRET|PASSWORD|TOKEN)", text, re.MULTILINE)
    ignored = (ROOT / "docker" / f"{name}.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    # `**/__pycache__` and what is not named never gets into an image.
    copied = {
        path for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for path in line.split()
    }
    assert copied == {line.removeprefix("!") for line in ignored if line.startswith("!")}


def test_the_image_for_gpus_is_of_one_cuda() -> None:
    text = (ROOT / "docker" / "Dockerfile.cuda").read_text(encoding="utf-8")
    assert re.search(r"^ARG BASE=nvidia/cuda:12\.", text, re.MULTILINE)
    assert re.search(r"^ARG TORCH_INDEX=https://download\.pytorch\.org/whl/cu12\d$", text, re.MULTILINE)
    # Torch is asked for before anything that would bring another one.
    assert text.index('--index-url "${TORCH_INDEX}" "${TORCH}"') < text.index(
        "sentence-transformers,training]"
    )


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_environment_of_images_is_settings(name: str) -> None:
    text = (ROOT / "docker" / name).read_text(encoding="utf-8")
    given = dict(re.findall(r"(CROSSRAG_\w+__\w+)=(\S+)", text))
    assert load_settings(environ=given, directory=Path("/nowhere")).settings.index.path == Path("/index")

"""What `/openapi.json` says is so: schemathesis with all its phases, in process, with a fixed seed."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from crossrag.server import uploads
from crossrag.server.app import create_app
from crossrag.testing import CannedGenerator

if TYPE_CHECKING:
    from crossrag.server.service import Service

PHASES = ["examples", "coverage", "fuzzing", "stateful"]
CHECKS = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
}
KEY = "canary-key"


def configured(seed: int, examples: int) -> SchemathesisConfig:
    others = ("positive_data_acceptance", "object_level_authorization")
    return SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "continue-on-failure": True,
            "generation": {"max-examples": examples, "database": "none"},
            # Enough to come upon something that can be deleted.
            "phases": {"stateful": {"generation": {"max-examples": 3 * examples}}},
            "checks": {
                # A timeout of 0.001 s is answered with what it asks for.
                "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 504]},
                **{name: {"enabled": False} for name in others},
            },
        }
    )


@pytest.mark.parametrize("examples", [4, pytest.param(200, marks=pytest.mark.stress)])
def test_the_description_is_kept(make: Callable[..., Service], examples: int) -> None:
    seed = int(os.environ.get("STRESS_SEED", "20261124"))
    if examples > 4:
        examples = int(os.environ.get("STRESS_EXAMPLES", examples))
    print(f"seed {seed}, {examples} examples")
    service = make(generator=CannedGenerator(["It is so [1]."]), api_key=KEY, feedback_per_minute=10**6)
    # So that there is something to delete: only what was uploaded may be.
    given = [uploads.Given(f"a{n:02}.md", io.BytesIO(b"Some text to delete.")) for n in range(60)]
    uploads.store(service.rag(None, ""), service.uploads("default", ""), given)
    head = {"Host": "localhost", "Authorization": f"Bearer {KEY}"}
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", create_app(service), config=configured(seed, examples), headers=head
    )
    schema.config.update(headers=head)
    schema.config.phases.update(phases=PHASES)
    ran: dict[str, str] = {}
    checked: Counter[str] = Counter()
    failures: dict[tuple[str, str], str] = {}
    deleted = 0
    for event in from_schema(schema).execute():
        if isinstance(event, events.PhaseFinished):
            ran[event.phase.name.value.lower()] = event.status.value
        elif isinstance(event, events.NonFatalError | events.FatalError):
            failures["error", type(event).__name__] = str(getattr(event, "info", event))
        elif isinstance(event, events.ScenarioFinished):
            deleted += sum(
                one.request.method == "DELETE"
                and one.response is not None
                and one.response.status_code == 204
                for one in event.recorder.interactions.values()
            )
            for checks in event.recorder.checks.values():
                for check in checks:
                    checked[check.name] += 1
                    if check.failure_info is not None:
                        told = f"{check.failure_info.failure}\n{check.failure_info.code_sample}"
                        failures.setdefault((str(event.label), check.name), told)
    service.close()
    assert not failures, "\n".join(f"{where}: {told}" for where, told in failures.items())
    assert {name: ran[name] for name in PHASES} == dict.fromkeys(PHASES, "success")
    assert set(checked) >= CHECKS
    assert deleted, "nothing was deleted, so that nothing was used afterwards"

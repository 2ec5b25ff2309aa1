"""The first request is as quick as the next ones (promise 40), and hours change nothing (39)."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from crossrag import Settings
from crossrag.config import IndexSettings
from crossrag.server.service import Service

from .conftest import listening

QUESTION = "How do I restore a backup?"


def test_nothing_is_loaded_once_the_server_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime
    import tokenizers

    (tmp_path / "backup.md").write_text("To restore a backup, run the restore command.")
    service = Service(Settings(index=IndexSettings(path=tmp_path / "index")))
    service.rag(None, "").ingest(tmp_path / "backup.md")
    with listening(service) as found:

        def loaded(*_: object, **__: object) -> None:
            raise AssertionError("a model is loaded by a request")

        monkeypatch.setattr(onnxruntime, "InferenceSession", loaded)
        monkeypatch.setattr(tokenizers.Tokenizer, "from_file", loaded, raising=False)
        reply = httpx.post(f"{found.url}/api/v1/answer", json={"question": QUESTION}, timeout=60)
        assert reply.json()["degraded"] == []
        assert "restore command" in reply.json()["text"]


def held() -> tuple[int, int, int]:
    """Bytes, open files and threads of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return (
        1024 * int(status.split("VmRSS:")[1].split()[0]),
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        threading.active_count(),
    )


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
@pytest.mark.parametrize("seconds", [6.0, pytest.param(3_600.0, marks=pytest.mark.stress)])
def test_hours_of_mixed_requests_leave_nothing_behind(make: Callable[..., Service], seconds: float) -> None:
    seconds = float(os.environ.get("SOAK_SECONDS", seconds)) if seconds > 60 else seconds
    chance = random.Random(20_261_124)  # noqa: S311
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/api/v1/search", {"json": {"query": QUESTION, "explain": True}}),
        ("POST", "/api/v1/answer", {"json": {"question": QUESTION}}),
        ("POST", "/api/v1/answer", {"json": {"question": QUESTION, "stream": True}}),
        ("POST", "/v1/rerank", {"json": {"query": "x", "documents": ["a", "b"]}}),
        ("POST", "/api/v1/documents", {"files": {"files": ("same.md", "The same text.")}}),
        ("GET", "/api/v1/documents", {}),
        ("GET", "/nothing", {}),
        ("POST", "/api/v1/search", {"json": {"query": ""}}),
        ("GET", "/metrics", {}),
    ]
    measured: list[tuple[float, int, int, int]] = []
    with listening(make()) as found:
        started = time.monotonic()
        while (now := time.monotonic() - started) < seconds:
            with httpx.Client(base_url=found.url, timeout=30) as client:
                for _ in range(20):
                    method, path, arguments = chance.choice(requests)
                    assert client.request(method, path, **arguments).status_code < 500
                with client.stream(
                    "POST", "/api/v1/answer", json={"question": QUESTION, "stream": True}
                ) as one:
                    next(one.iter_text())  # and leave
            measured.append((now, *held()))
    late = np.array([row for row in measured if row[0] >= seconds / 3])
    assert len(late) > 2, "too slow a machine to see anything"
    first, last = late[: len(late) // 2], late[len(late) // 2 :]
    assert np.median(last[:, 2]) <= np.median(first[:, 2]) + 5, "open files"
    assert np.median(last[:, 3]) <= np.median(first[:, 3]) + 5, "threads"
    slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) * 600
    print(f"memory: {slope / 1e6:.2f} MB in ten minutes")
    if seconds > 600:
        assert slope < 1e6

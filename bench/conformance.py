"""The conformance suite over other libraries and ours, all with the same weights, and over langchain-qdrant.

    pip install -r bench/requirements.txt
    python bench/conformance.py --out docs/conformance.md

Everybody runs with its own defaults. Where a library takes a folder for torch, the frame of the model is the
library's and the network inside is the bundled reranker; FlashRank and FastEmbed run the same weights as one
int8 graph. `--out` replaces the measured part of a page.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

# Nobody may go to the network, nor say that it was here.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "true",
}

import conformance_peers as peers
from common import machine
from crossrag.testing.conformance import CHECKS, run

if TYPE_CHECKING:
    from crossrag.testing.conformance import Report, Target

BEGIN, END = "<!-- measured: python bench/conformance.py -->", "<!-- end of what was measured -->"
_MARK = {"pass": "✓", "fail": "**✗**", "not applicable": "·"}


def main() -> None:
    """Run every target in turn and print one table for each part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("src/crossrag/models/progressive-reranker"))
    parser.add_argument("--only", nargs="*", help="only these targets")
    parser.add_argument("--out", type=Path, help="page whose measured part is replaced")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wanted = peers.targets(arguments.model, Path(scratch))
        reports = {
            name: _asked(name, make)
            for name, make in wanted.items()
            if not arguments.only or name in arguments.only
        }
    if arguments.json:
        print(json.dumps({name: [asdict(one) for one in report.results] for name, report in reports.items()}))
        return
    text = "\n".join(
        [*_head(), *_table(reports, "rerank"), *_table(reports, "retrieve"), *_failures(reports)]
    )
    print(text)
    if arguments.out:
        page = arguments.out.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        arguments.out.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _asked(name: str, make: Callable[[], Target]) -> Report:
    print(f"asking {name}", file=sys.stderr, flush=True)
    return run(make())


def _head() -> list[str]:
    versions = ", ".join(f"{package} {found}" for package, found in peers.versions().items())
    return [
        f"Measured on {date.today().isoformat()}, {machine()}.",  # noqa: DTZ011 - the day where it ran
        f"Versions: {versions}.",
        "",
    ]


def _table(reports: Mapping[str, Report], part: str) -> list[str]:
    asked = {
        name: {one.name: one for one in report.results if one.part == part}
        for name, report in reports.items()
        if any(one.part == part and one.status != "not applicable" for one in report.results)
    }
    if not asked:
        return []
    lines = [f"| | {' | '.join(asked)} |", f"|---{'|:-:' * len(asked)}|"]
    for check in CHECKS:
        if check.part == part:
            marks = [_MARK[results[check.name].status] for results in asked.values()]
            lines.append(f"| {check.name} | {' | '.join(marks)} |")
    return [*lines, ""]


def _failures(reports: Mapping[str, Report]) -> list[str]:
    """What was seen, by library."""
    lines = ["What was seen where a check failed:", ""]
    for name, report in reports.items():
        lines += [f"- {name}, {one.name}: {_cell(one.evidence)}." for one in report.failures]
    return lines


def _cell(text: str) -> str:
    return re.sub(r"[|<>]", " ", text)


if __name__ == "__main__":
    main()

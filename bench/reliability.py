"""How far a relevance can be believed: predicted against observed, a panel per labelled set.

    python bench/quality.py --raw logits.jsonl …
    python bench/reliability.py logits.jsonl --model MODEL_FOLDER --out reliability.svg

Over the ten best passages of each question, in ten bins of equal width. Prints the same as a table. The
drawing is the same, byte for byte, for the same input.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from crossrag.calibration import Calibration, calibration_error

BINS = 10
SHOWN = 10


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raw", type=Path, help="what bench/quality.py --raw wrote")
    parser.add_argument("--model", type=Path, required=True, help="model folder with the calibration")
    parser.add_argument("--out", type=Path, required=True, help="SVG")
    arguments = parser.parse_args()
    config = json.loads((arguments.model / "config.json").read_text(encoding="utf-8"))
    said = pairs(arguments.raw, Calibration(**config["calibration"]))
    print("| set | passages | relevant | mean relevance | observed | ECE |\n|---|---|---|---|---|---|")
    for name, (predicted, relevant) in said.items():
        error = calibration_error(predicted, relevant)
        print(
            f"| {name} | {len(relevant)} | {sum(relevant)} | {np.mean(predicted):.3f} "
            f"| {np.mean(relevant):.3f} | {error:.3f} |"
        )
    draw(said, arguments.out)


def pairs(path: Path, calibration: Calibration) -> dict[str, tuple[list[float], list[bool]]]:
    """Per set: relevance as predicted, and whether it was; of the best `SHOWN` of each question."""
    found: dict[str, tuple[list[float], list[bool]]] = {}
    for question in _lines(path):
        predicted, relevant = found.setdefault(question["set"], ([], []))
        for grade, *_, logit in sorted(question["rows"], key=lambda row: -row[-1])[:SHOWN]:
            predicted.append(calibration.probability(logit))
            relevant.append(grade > 0)
    return found


def draw(said: Mapping[str, tuple[Sequence[float], Sequence[bool]]], out: Path) -> None:
    """A panel per set: the share of relevant passages in each bin, its size by the area of the point."""
    mpl.rcParams["svg.hashsalt"] = "reliability"
    columns = 4
    rows = -(-len(said) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 2.8 * rows), sharex=True, sharey=True, squeeze=False
    )
    for panel in panels.flat[len(said) :]:
        panel.axis("off")
    for panel, (name, (predicted, relevant)) in zip(panels.flat, said.items(), strict=False):
        places = np.minimum((np.asarray(predicted) * BINS).astype(int), BINS - 1)
        for number in sorted(set(places.tolist())):
            inside = places == number
            panel.scatter(
                np.mean(np.asarray(predicted)[inside]),
                np.mean(np.asarray(relevant)[inside]),
                s=8 + 250 * inside.mean(),
                color="#1f6f8b",
                alpha=0.75,
                linewidths=0,
            )
        panel.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle="--")
        panel.set_title(f"{name}  (ECE {calibration_error(predicted, relevant):.3f})", fontsize=8)
        panel.tick_params(labelsize=7)
    figure.supxlabel("relevance as predicted", fontsize=9)
    figure.supylabel("share that was relevant", fontsize=9)
    figure.tight_layout()
    figure.savefig(out, format="svg", metadata={"Date": None})


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()

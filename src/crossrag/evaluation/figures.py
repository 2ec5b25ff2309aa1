"""A report -> drawings as SVG, by matplotlib: the same bytes for the same report.

Stages with their intervals, depth sweep, difference per question, reliability, risk against coverage. They
have a white ground of their own, so that they can be read on dark pages too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crossrag.errors import MissingExtraError

from .measures import MAIN

BLUE, ORANGE, GREY, RED = "#1f5fa8", "#d9822b", "#9aa5b1", "#b3392f"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#5b6770",
    "axes.labelcolor": "#2b333b",
    "xtick.color": "#5b6770",
    "ytick.color": "#5b6770",
    "svg.hashsalt": "crossrag",
    "figure.dpi": 100,
}


def draw(report: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Draw whatever the report has figures for. Returns name -> file name.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("Drawing needs the package matplotlib", hint="pip install 'crossrag[eval]'")
    wanted: dict[str, tuple[bool, Callable[[Any, Mapping[str, Any]], None]]] = {
        "stages": (True, _stages),
        "sweep": (len(report["sweep"]) > 1, _sweep),
        "differences": (bool(report["gain"]), _differences),
        "reliability": (bool(report["trust"]), _reliability),
        "coverage": (bool(report["abstention"]), _coverage),
    }
    return {
        name: _drawn(folder / f"{name}.svg", report, how) for name, (there, how) in wanted.items() if there
    }


def _drawn(path: Path, report: Mapping[str, Any], how: Callable[[Any, Mapping[str, Any]], None]) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        # A figure of its own, not pyplot's: nothing is kept, nothing needs a display.
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        how(figure.add_subplot(), report)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": "crossrag"})
    return path.name


def _stages(axes: Any, report: Mapping[str, Any]) -> None:
    stages = {name: rows[MAIN] for name, rows in report["stages"].items()}
    for place, (name, value) in enumerate(stages.items()):
        colour = ORANGE if name in {"reranked", "kept"} else BLUE
        around = [[value["mean"] - value["low"]], [value["high"] - value["mean"]]]
        axes.errorbar(value["mean"], place, xerr=around, fmt="o", color=colour, capsize=3, elinewidth=1.5)
        axes.annotate(
            f"{value['mean']:.3f}",
            (value["mean"], place),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
        )
    axes.set_yticks(range(len(stages)), list(stages))
    axes.set_ylim(len(stages) - 0.4, -0.7)
    axes.set_xlabel(f"{MAIN}, mean and 95 % interval")
    axes.set_title(report["dataset"]["name"])
    axes.grid(axis="x", color="#e5e9ed", linewidth=0.8)


def _sweep(axes: Any, report: Mapping[str, Any]) -> None:
    depths = [row["depth"] for row in report["sweep"]]
    axes.plot(depths, [row["value"] for row in report["sweep"]], "o-", color=ORANGE, markersize=4)
    axes.set_xlabel("candidates reranked")
    axes.set_ylabel(MAIN)
    axes.set_title("What reading more candidates is worth")
    axes.grid(color="#e5e9ed", linewidth=0.8)
    if took := report["times"]["sweep_milliseconds"]:
        other = axes.twinx()
        known = [(depth, took[str(depth)]) for depth in depths if str(depth) in took]
        other.plot(*zip(*known, strict=True), "s--", color=GREY, markersize=3, linewidth=1)
        other.set_ylabel("ms per question (dashed)", color="#5b6770")
        other.set_ylim(bottom=0)
        other.spines["right"].set_visible(True)


def _differences(axes: Any, report: Mapping[str, Any]) -> None:
    values = sorted(
        row["values"]["reranked"][MAIN] - row["values"]["fused"][MAIN]
        for row in report["questions"]
        if "reranked" in row["values"]
    )
    axes.bar(range(len(values)), values, width=1.0, color=[RED if value < 0 else BLUE for value in values])
    axes.axhline(0, color="#5b6770", linewidth=0.8)
    gain = report["gain"][MAIN]
    axes.set_title(f"{gain['wins']} questions better, {gain['ties']} the same, {gain['losses']} worse")
    axes.set_xlabel("questions, worst to best")
    axes.set_ylabel(f"{MAIN}, reranked - fused")
    axes.set_xlim(-1, len(values))


def _reliability(axes: Any, report: Mapping[str, Any]) -> None:
    trust = report["trust"]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=1)
    largest = max(group["count"] for group in trust["bins"])
    for group in trust["bins"]:
        size = 16 + 160 * group["count"] / largest
        axes.scatter(
            group["said"], group["was"], s=size, color=ORANGE, alpha=0.85, edgecolors="white", zorder=2
        )
        axes.annotate(
            str(group["count"]),
            (group["said"], group["was"]),
            xytext=(9, 3),
            textcoords="offset points",
            color="#5b6770",
            fontsize=7,
        )
    axes.set_xlim(-0.04, 1.08)
    axes.set_ylim(-0.06, 1.08)
    axes.set_xlabel("relevance, as said")
    axes.set_ylabel("share that was relevant")
    axes.set_title(f"Expected calibration error {trust['error']:.3f}; numbers are passages")


def _coverage(axes: Any, report: Mapping[str, Any]) -> None:
    found = report["abstention"]
    points, here = found["points"], found["at_threshold"]
    axes.plot([p["coverage"] for p in points], [p["risk"] for p in points], color=BLUE)
    axes.plot(here["coverage"], here["risk"], "o", color=ORANGE)
    axes.annotate(
        f"threshold {here['threshold']:g}",
        (here["coverage"], here["risk"]),
        xytext=(-6, 8),
        textcoords="offset points",
        ha="right",
    )
    axes.set_xlim(0, 1.03)
    axes.set_ylim(bottom=-0.02)
    axes.set_xlabel("share of questions answered, surest first")
    axes.set_ylabel("share whose first passage is wrong")
    axes.set_title(f"Area under the curve {found['area']:.3f}")
    axes.grid(color="#e5e9ed", linewidth=0.8)

"""A reranker's folder -> the same network with products in floats, for devices that are slow at integers.

    python scripts/float_reranker.py src/crossrag/models/progressive-reranker float-reranker

int8 is for processors; CUDA has kernels for floats. Needs the extra `training`. Scores differ by what int8
had rounded away; margins, forecasts and calibration are kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from crossrag.exported import read_config
from crossrag.training.export import export, write_checksums
from crossrag.training.network import from_exported


def convert(folder: Path, out: Path, *, batch_size: int = 256, batch_tokens: int = 65_536) -> None:
    """Write `out`, which `progressive:OUT` names.

    Args:
        folder: With int8 graphs.
        out: Made if it is missing.
        batch_size: Pairs per run; what a GPU needs to be busy is more than a processor does.
        batch_tokens: Padded tokens per run.
    """
    export(from_exported(folder), folder / "tokenizer.json", out, int8=False)
    graphs = json.loads((out / "config.json").read_text(encoding="utf-8"))["graphs"]
    config = {**read_config(folder), "graphs": graphs, "batch_size": batch_size, "batch_tokens": batch_tokens}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    write_checksums(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    convert(given.folder, given.out)

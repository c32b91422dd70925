"""Cut the splits.

python stages/splits.py --manifest data/manifests/X --status data/validation/X/clips/status.csv \
    --out data/splits/X
"""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.datasets.clips.splits import write_splits
from flowsight.params import config


def main() -> None:
    """Write one table for each split id of the parameters."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--manifest", "--status", "--out"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    params = config.load()
    write_splits(
        args.manifest,
        args.status,
        args.out,
        ids=params.splits.ids,
        val_share=params.splits.val_share,
        seed=params.seed,
        max_absent=params.dataset.max_absent,
    )


if __name__ == "__main__":
    errors.guard(main)

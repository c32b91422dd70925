"""Look at images and masks, and split them: python stages/pairs.py data/raw/X --out data/pairs/X"""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.datasets.images import pairs
from flowsight.params import config


def main() -> None:
    """Write items, status and splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw", type=Path, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    params = config.load()
    images = params.images
    pairs.write_pairs(
        args.raw,
        args.out,
        split_ids=images.split_ids,
        test_share=images.test_share,
        val_share=images.val_share,
        seed=params.seed,
        max_quarantined=images.max_quarantined,
    )


if __name__ == "__main__":
    errors.guard(main)

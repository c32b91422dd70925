"""List and probe a data set.

python stages/manifest.py --raw data/raw/X --out data/manifests/X --shards data/shards/X \
    --truth data/truth/X
"""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.datasets.clips.manifest import write_manifest
from flowsight.params import config


def main() -> None:
    """Write the manifest, the shards' folders and the ground truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--raw", "--out", "--shards", "--truth"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    params = config.load()
    write_manifest(
        args.raw,
        args.out,
        args.shards,
        args.truth,
        adapter=params.dataset.adapter,
        shards=params.shards,
        max_absent=params.dataset.max_absent,
        threads=params.threads,
    )


if __name__ == "__main__":
    errors.guard(main)

"""Store the frames of one shard: python stages/frames.py data/shards/X/0 --out data/frames/X/0"""

import argparse
from pathlib import Path

from flowsight import config, errors, packing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shard", type=Path, help="folder with clips.csv and videos/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the packs")
    args = parser.parse_args()
    params = config.load()
    packing.pack_frames(
        args.shard, args.out, size=params.frames.size, quality=params.frames.quality
    )


if __name__ == "__main__":
    errors.guard(main)

"""Frames of one shard: python stages/frames.py data/shards/X/0 --out DIR --stage frames@0"""

import argparse
from pathlib import Path

from flowsight import errors, files
from flowsight.datasets.clips import frames
from flowsight.params import config
from flowsight.pipeline import dvc_yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shard", type=Path, help="folder with clips.csv and videos/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the packs")
    parser.add_argument("--stage", help="name in dvc.yaml (frames@0): a killed run then goes on")
    args = parser.parse_args()
    params = config.load()
    key = f"{args.stage}/{dvc_yaml.stage_key(args.stage)}" if args.stage else None
    frames.pack_frames(
        args.shard,
        args.out,
        size=params.frames.size,
        quality=params.frames.quality,
        keep=files.scratch(key) if key else None,
    )


if __name__ == "__main__":
    errors.guard(main)

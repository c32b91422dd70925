"""Optical flow of one shard: python stages/flow.py data/shards/X/0 --out DIR --stage flow@0"""

import argparse
from pathlib import Path

from flowsight import errors, files
from flowsight.datasets.clips import flow
from flowsight.params import config
from flowsight.pipeline import dvc_yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shard", type=Path, help="folder with clips.csv and videos/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the packs")
    parser.add_argument("--stage", help="name in dvc.yaml (flow@0): a killed run then goes on")
    args = parser.parse_args()
    params = config.load()
    key = f"{args.stage}/{dvc_yaml.stage_key(args.stage)}" if args.stage else None
    flow.pack_flow(
        args.shard,
        args.out,
        method=params.flow.method,
        preset=params.flow.preset,
        backend=params.flow.backend,
        bound_px=params.flow.bound_px,
        quality=params.flow.quality,
        size=params.frames.size,
        keep=files.scratch(key) if key else None,
    )


if __name__ == "__main__":
    errors.guard(main)

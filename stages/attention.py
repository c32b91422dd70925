"""Attention maps of one row: python stages/attention.py spatial --manifest ... --out ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.params import config
from flowsight.systems.two_stream.params import SYSTEM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="phase-1 row of params.yaml")
    parser.add_argument("--manifest", type=Path, required=True, help="folder of the manifest")
    parser.add_argument("--split", type=Path, required=True, help="clip_id,subset of one split")
    parser.add_argument("--packs", type=Path, required=True, help="folder of frame or flow packs")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of the network")
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps")
    parser.add_argument("--network", type=Path, required=True, help="folder: attention network")
    args = parser.parse_args()
    params = config.load()
    from flowsight.systems.two_stream.maps import extraction

    extraction.extract(
        name=args.row,
        row=params.row(args.row),
        attention=params.system(SYSTEM).attention,
        manifest=args.manifest,
        split=args.split,
        packs=args.packs,
        checkpoint=args.checkpoint,
        out=args.out,
        network_out=args.network,
        seed=params.seed,
        threads=params.threads,
    )


if __name__ == "__main__":
    errors.guard(main)

"""Where a network over time looks: python stages/spatial_attention.py resnet3d_attention ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.params import config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="a row of params.yaml")
    parser.add_argument("--manifest", type=Path, required=True, help="folder of the manifest")
    parser.add_argument("--split", type=Path, required=True, help="table of clip_id and subset")
    parser.add_argument("--packs", type=Path, required=True, help="folder of frames or flow packs")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder with model.pt")
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps")
    args = parser.parse_args()
    params = config.load()
    from flowsight.systems.residual3d import spatial_maps

    spatial_maps.extract(
        name=args.row,
        row=params.row(args.row),
        manifest=args.manifest,
        split=args.split,
        packs=args.packs,
        checkpoint=args.checkpoint,
        out=args.out,
        threads=params.threads,
    )


if __name__ == "__main__":
    errors.guard(main)

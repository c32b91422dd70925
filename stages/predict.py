"""Score validation and test clips: python stages/predict.py spatial --manifest ... --out ..."""

import argparse
from pathlib import Path

from flowsight import contract, errors
from flowsight.classifiers import scores
from flowsight.params import config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="a row of params.yaml")
    parser.add_argument("--manifest", type=Path, required=True, help="folder of the manifest")
    parser.add_argument("--split", type=Path, required=True, help="table of clip_id and subset")
    parser.add_argument("--packs", type=Path, required=True, help="folder of frames or flow packs")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder with model.pt")
    parser.add_argument("--out", type=Path, required=True, help="parquet file")
    args = parser.parse_args()
    params = config.load()
    predictions = scores.predict(
        model=contract.part(params.owner(args.row), "network"),
        row=params.row(args.row),
        params=params,
        manifest=args.manifest,
        split=args.split,
        packs=args.packs,
        checkpoint_dir=args.checkpoint,
    )
    scores.write(predictions, args.out)


if __name__ == "__main__":
    errors.guard(main)

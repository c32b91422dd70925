"""Train a stream on with the other's maps: python stages/train_attended.py spatial_attended ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.training import job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="a row of params.yaml")
    parser.add_argument("--manifest", type=Path, required=True, help="folder of the manifest")
    parser.add_argument("--split", type=Path, required=True, help="table of clip_id and subset")
    parser.add_argument("--packs", type=Path, required=True, help="folder of frames or flow packs")
    parser.add_argument("--stage", required=True, help="name in dvc.yaml")
    parser.add_argument("--init", type=Path, required=True, help="checkpoint of phase 1, a folder")
    parser.add_argument("--maps", type=Path, required=True, help="maps of the other stream")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.pt")
    parser.add_argument("--history", type=Path, required=True, help="CSV, a line an epoch")
    job.train(**vars(parser.parse_args()))


if __name__ == "__main__":
    errors.guard(main)

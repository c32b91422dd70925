"""Train a stream on its own: python stages/train.py spatial --manifest data/manifests/X ..."""

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
    parser.add_argument("--stage", required=True, help="name in dvc.yaml, as train@spatial-1")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.pt")
    parser.add_argument("--history", type=Path, required=True, help="CSV, a line an epoch")
    job.train(**vars(parser.parse_args()))


if __name__ == "__main__":
    errors.guard(main)

"""Cut kernels of a trained network and train it on: python stages/slim.py fcn_f --init ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.systems.saliency import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="name of the row in params.yaml")
    parser.add_argument("--raw", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--pairs", type=Path, required=True, help="folder of items and splits")
    parser.add_argument("--split", required=True, help="name of the split")
    parser.add_argument("--stage", required=True, help="name in dvc.yaml")
    parser.add_argument("--init", type=Path, required=True, help="checkpoint to slim, a folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.pt")
    parser.add_argument("--history", type=Path, required=True, help="CSV, a line an epoch")
    train.train(**vars(parser.parse_args()))


if __name__ == "__main__":
    errors.guard(main)

"""Train a network over scenes: python stages/train_scenes.py recurrent highway --scenes ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.systems.background import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="name of the row in params.yaml")
    parser.add_argument("split_id", help="key of `scenes.splits`")
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the videos")
    parser.add_argument("--stage", required=True, help="name in dvc.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder for model.pt")
    parser.add_argument("--history", type=Path, required=True, help="CSV, a line an epoch")
    train.train(**vars(parser.parse_args()))


if __name__ == "__main__":
    errors.guard(main)

"""Counts to numbers: python stages/evaluate_scenes.py --scenes ... --out ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.params import config
from flowsight.systems.background import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the videos")
    parser.add_argument("--predictions", type=Path, required=True, help="folders <row>-<split>")
    parser.add_argument("--peers", type=Path, required=True, help="folders <method>")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    evaluate.evaluate(config.load(), args.scenes, args.predictions, args.peers, args.out)


if __name__ == "__main__":
    errors.guard(main)

"""Predictions to numbers: python stages/evaluate.py two_stream --predictions ... --out ..."""

import argparse
from dataclasses import fields
from pathlib import Path

from flowsight import config, errors, evaluation


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system")
    for folder in fields(evaluation.Folders):
        parser.add_argument(f"--{folder.name}", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    names = [folder.name for folder in fields(evaluation.Folders)]
    folders = evaluation.Folders(**{name: getattr(args, name) for name in names})
    evaluation.evaluate(args.system, config.load(), folders, args.out)


if __name__ == "__main__":
    errors.guard(main)

"""Predictions to numbers: python stages/evaluate.py two_stream --predictions ... --out ..."""

import argparse
from dataclasses import fields
from pathlib import Path

from flowsight import contract, errors
from flowsight.params import config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system")
    parser.add_argument("--out", type=Path, required=True)
    args, rest = parser.parse_known_args()
    own = contract.part(args.system, "evaluate")
    reads = argparse.ArgumentParser(prog=f"evaluate.py {args.system}", description=__doc__)
    for folder in fields(own.Folders):
        reads.add_argument(f"--{folder.name}", type=Path, required=True)
    folders = own.Folders(**vars(reads.parse_args(rest)))
    own.evaluate(config.load(), folders, args.out)


if __name__ == "__main__":
    errors.guard(main)

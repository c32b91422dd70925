"""One HTML page of everything: python stages/report.py --results results ... --out ..."""

import argparse
from pathlib import Path

from flowsight import errors, reporting
from flowsight.params import config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for folder in ("results", "history", "validation", "manifest", "out"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    reporting.write_report(
        results=args.results,
        history=args.history,
        validation=args.validation,
        manifest=args.manifest,
        params=config.load(),
        out=args.out,
    )


if __name__ == "__main__":
    errors.guard(main)

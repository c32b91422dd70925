"""A system's part of the page: python stages/report.py SYSTEM --results results/SYSTEM ..."""

import argparse
from pathlib import Path

from flowsight import errors, reporting
from flowsight.params import config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system")
    for folder in ("results", "history", "manifest", "out"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    args = vars(parser.parse_args())
    reporting.write_part(args.pop("system"), params=config.load(), **args)


if __name__ == "__main__":
    errors.guard(main)

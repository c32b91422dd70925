"""One HTML page of all parts: python stages/page.py --parts parts --out results/report ..."""

import argparse
from pathlib import Path

from flowsight import errors, reporting
from flowsight.params import config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=Path, required=True, help="folder of a folder a system")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, help="of the clips, where there are any")
    parser.add_argument("--validation", type=Path, help="of the clips, where there are any")
    reporting.write_page(params=config.load(), **vars(parser.parse_args()))


if __name__ == "__main__":
    errors.guard(main)

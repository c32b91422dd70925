"""Which of our files each stage runs, with their hashes: python stages/code.py --out code"""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.pipeline import code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of JSON files")
    code.write(Path.cwd(), parser.parse_args().out)


if __name__ == "__main__":
    errors.guard(main)

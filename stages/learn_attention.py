"""Maps learnt through the other stream's loss: python stages/learn_attention.py ROW ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.systems.two_stream import explain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="row of params.yaml that explains another one")
    parser.add_argument("--manifest", type=Path, required=True, help="folder of the manifest")
    parser.add_argument("--split", type=Path, required=True, help="clip_id,subset of one split")
    parser.add_argument("--packs", type=Path, required=True, help="packs of the row")
    parser.add_argument("--through-packs", type=Path, required=True, help="packs of the other")
    parser.add_argument("--checkpoint", type=Path, required=True, help="network of the row")
    parser.add_argument("--through-checkpoint", type=Path, required=True, help="of the other")
    parser.add_argument("--out", type=Path, required=True, help="folder for the maps")
    parser.add_argument("--network", type=Path, required=True, help="folder: attention network")
    explain.learn(**vars(parser.parse_args()))


if __name__ == "__main__":
    errors.guard(main)

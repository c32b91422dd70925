"""Train two streams in turn: python stages/alternate.py spatial_turns temporal_turns ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.systems.two_stream import alternate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", help="key of `rows`: the stream that trains first")
    parser.add_argument("second", help="key of `rows`: the one that sees its maps, and it theirs")
    parser.add_argument("--manifest", type=Path, required=True, help="folder of the manifest")
    parser.add_argument("--split", type=Path, required=True, help="table of clip_id and subset")
    parser.add_argument("--packs", type=Path, nargs=2, required=True, help="packs of each")
    parser.add_argument("--stage", required=True, help="name in dvc.yaml")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--attention", type=Path, required=True, help="folder of attention maps")
    parser.add_argument("--history", type=Path, required=True, help="folder of histories")
    alternate.alternate(**vars(parser.parse_args()))


if __name__ == "__main__":
    errors.guard(main)

"""What OpenCV's methods find in all videos: python stages/peers.py --scenes data/raw/X --out ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.params import config
from flowsight.systems.background import peers
from flowsight.systems.background.params import SYSTEM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the videos")
    parser.add_argument("--out", type=Path, required=True, help="folder of a folder a method")
    args = parser.parse_args()
    params = config.load()
    methods = params.system(SYSTEM).peers
    peers.run(args.scenes, params.scenes.videos, methods, args.out)


if __name__ == "__main__":
    errors.guard(main)

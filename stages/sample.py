"""Render the generated data set.

python stages/sample.py --out data/raw/sample --scenes data/raw/sample_scenes \
    --images data/raw/sample_images --faces data/raw/sample_faces
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from flowsight.errors import guard
from flowsight.params import config
from flowsight.samples import rendering


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="action clips")
    parser.add_argument("--scenes", type=Path, required=True, help="static-camera sequences")
    parser.add_argument("--images", type=Path, required=True, help="image and mask pairs")
    parser.add_argument("--faces", type=Path, required=True, help="faces with an expression")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    params = config.load()
    folders = (args.out, args.scenes, args.images, args.faces)
    rendering.render(*folders, **asdict(params.sample))


if __name__ == "__main__":
    guard(main)

"""Maps of validation and test images: python stages/predict_saliency.py fcn --raw ... --out ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.params import config
from flowsight.systems.saliency import predict
from flowsight.systems.saliency.params import SYSTEM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="name of the row in params.yaml")
    parser.add_argument("--raw", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--pairs", type=Path, required=True, help="folder of items and splits")
    parser.add_argument("--split", required=True, help="name of the split")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder with model.pt")
    parser.add_argument("--out", type=Path, required=True, help="parquet file")
    parser.add_argument("--maps", type=Path, required=True, help="pack of the maps, a zip")
    args = vars(parser.parse_args())
    params = config.load()
    predict.predict(block=params.system(SYSTEM), threads=params.threads, **args)


if __name__ == "__main__":
    errors.guard(main)

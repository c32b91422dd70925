"""A network over all videos: python stages/predict_scenes.py recurrent highway --scenes ..."""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.datasets.scenes import videos
from flowsight.params import config
from flowsight.systems.background import predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", help="a row of params.yaml")
    parser.add_argument("split_id", help="key of `scenes.splits`")
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the videos")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder with model.pt")
    parser.add_argument("--out", type=Path, required=True, help="folder of counts and masks")
    args = parser.parse_args()
    params = config.load()
    predict.predict(
        row=params.row(args.row),
        videos=videos.open_videos(args.scenes, params.scenes.videos),
        trained_on=params.scenes.trained_on(args.split_id),
        checkpoint_dir=args.checkpoint,
        threads=params.threads,
        out=args.out,
    )


if __name__ == "__main__":
    errors.guard(main)

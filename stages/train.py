"""Train a row, on its own or on from another: python stages/train.py SYSTEM ROW SPLIT ..."""

from flowsight import errors
from flowsight.pipeline import job
from flowsight.training.job import train


def main() -> None:
    train(job.of_row(__doc__))


if __name__ == "__main__":
    errors.guard(main)

"""What a trained row says of items it did not learn from: python stages/predict.py SYSTEM ..."""

from dataclasses import replace

from flowsight import contract, errors, files
from flowsight.pipeline import job


def main() -> None:
    asked = job.of_row(__doc__)
    with files.atomic_dir(asked.out) as folder:
        contract.part(asked.system, "predict").predict(replace(asked, out=folder))


if __name__ == "__main__":
    errors.guard(main)

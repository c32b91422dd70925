"""Predictions to numbers: python stages/evaluate.py SYSTEM --... --out FOLDER"""

from flowsight import contract, errors, files
from flowsight.pipeline import job


def main() -> None:
    asked = job.of_system(__doc__)
    copy = asked.folders["metrics"]
    contract.part(asked.system, "evaluate").evaluate(asked.params, asked.folders, asked.out)
    # for `dvc metrics`, which reads no folder that holds other files too
    files.copy(asked.out / "metrics.json", copy)


if __name__ == "__main__":
    errors.guard(main)

"""Maps of a trained network: python stages/explain.py SYSTEM ROW SPLIT ..."""

from flowsight import contract, errors
from flowsight.pipeline import job


def main() -> None:
    asked = job.of_row(__doc__)
    contract.part(asked.system, "explain").explain(asked)


if __name__ == "__main__":
    errors.guard(main)

"""Where a network over time looks: python stages/spatial_attention.py SYSTEM ROW SPLIT ..."""

from flowsight import contract, errors
from flowsight.pipeline import job


def main() -> None:
    asked = job.of_row(__doc__)
    contract.part(asked.system, "spatial_attention").spatial_attention(asked)


if __name__ == "__main__":
    errors.guard(main)

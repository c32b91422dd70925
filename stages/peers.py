"""What methods without training find: python stages/peers.py SYSTEM --... --out FOLDER"""

from flowsight import contract, errors
from flowsight.pipeline import job


def main() -> None:
    asked = job.of_system(__doc__)
    contract.part(asked.system, "peers").peers(asked.params, asked.folders, asked.out)


if __name__ == "__main__":
    errors.guard(main)

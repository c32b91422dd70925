"""A system's part of the page: python stages/report.py SYSTEM --results ... --out FOLDER"""

from flowsight import errors, reporting
from flowsight.pipeline import job


def main() -> None:
    asked = job.of_system(__doc__)
    reporting.write_part(asked.system, asked.params, asked.folders, asked.out)


if __name__ == "__main__":
    errors.guard(main)

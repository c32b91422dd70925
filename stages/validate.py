"""Refuse bad tables: python stages/validate.py manifest|clips|splits FOLDER... --out FOLDER"""

import argparse
from pathlib import Path

from flowsight import errors
from flowsight.datasets.clips import validation
from flowsight.params import config


def main() -> None:
    """Validate one subject."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", choices=("manifest", "clips", "splits"))
    parser.add_argument("folders", type=Path, nargs="+", help="manifest, then what it checks")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    params = config.load()
    allowed, out = params.dataset.max_quarantined, args.out
    wanted = {"manifest": 1, "clips": 3, "splits": 2}[args.subject]
    if len(args.folders) != wanted:
        parser.error(f"{args.subject} takes {wanted} folders, got {len(args.folders)}")
    manifest, *made = args.folders
    if args.subject == "manifest":
        validation.validate_manifest(manifest, out, max_quarantined=allowed)
    elif args.subject == "clips":
        validation.validate_clips(
            manifest, made[0], made[1], out, shards=params.shards, max_quarantined=allowed
        )
    else:
        ids, max_absent = params.splits.ids, params.dataset.max_absent
        validation.validate_splits(manifest, made[0], out, ids=ids, max_absent=max_absent)


if __name__ == "__main__":
    errors.guard(main)

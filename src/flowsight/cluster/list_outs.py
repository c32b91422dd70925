"""Paths and hashes of all that DVC knows here, as JSON: python list_outs.py [PATH]

Of folders only DVC's list is fetched, no content. (`dvc list` does the same, but stumbles over
folders that are not there.)
"""

from __future__ import annotations

import json
import sys
from pathlib import PurePosixPath


def main(path: str | None) -> None:
    """Print {path: MD5} of every tracked file, below `path` only if it is given."""
    from dvc.repo import Repo

    found: dict[str, str] = {}
    with Repo(".") as repo:
        for out in repo.index.outs:
            at = PurePosixPath(out.fs.relpath(out.fs_path, repo.root_dir))
            if not out.hash_info or (path is not None and str(at) != path):
                continue
            if not out.hash_info.isdir:
                found[str(at)] = out.hash_info.value
                continue
            out.get_dir_cache()
            for parts, _, hash_info in out.obj:
                found[str(at.joinpath(*parts))] = hash_info.value
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)

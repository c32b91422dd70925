#!/usr/bin/env bash
# Make requirements.lock anew from the ranges of pyproject.toml: one exact set for Python 3.11 and
# 3.12, with hashes and without addresses. Run a DAG once after every new lock.
set -euo pipefail
cd "$(dirname "$0")/.."
{
  echo "# The exact set, for Python 3.11 and 3.12; made by scripts/lock.sh from pyproject.toml."
  .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras \
    --generate-hashes --no-annotate --no-header --no-emit-index-url "$@" pyproject.toml
} > requirements.lock.new
mv requirements.lock.new requirements.lock

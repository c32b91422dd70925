#!/usr/bin/env bash
# Make .venv with the exact set of requirements.lock and this project in it. Called by make;
# does nothing (0.1 s) when nothing changed. Needs Python 3.11 or 3.12 and a package index.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
stamp=$venv/.flowsight-installed
wanted=$(cat requirements.lock pyproject.toml setup.py src/flowsight/flow/_tvl1.c scripts/setup.sh | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x "$venv/bin/flowsight" ]; then
  exit 0
fi

# `command -v` is not enough: version managers leave shims for versions that are not active
find_python() {
  for candidate in "${PYTHON:-}" python3.12 python3.11 python3 python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: expected Python 3.11 or 3.12 with venv, found none; install one or set PYTHON=/path/to/python" >&2
  exit 2
}

if [ ! -x "$venv/bin/python" ]; then
  python=$(find_python)
  echo "making $venv with $("$python" --version)" >&2
  "$python" -m venv "$venv"
fi

echo "installing the locked packages (about 6 GB on disk, mostly torch) ..." >&2
uv=$(grep -oE '^uv==[0-9.]+' requirements.lock)
if "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$uv" \
  && "$venv/bin/uv" pip sync --quiet --python "$venv/bin/python" --require-hashes requirements.lock; then
  install=("$venv/bin/uv" pip install --quiet --python "$venv/bin/python")
else
  # uv does not read pip's configuration (mirrors, certificates); pip does, only slower
  echo "uv could not install the set; trying pip (a few minutes) ..." >&2
  # the lock is whole; pip would look for hashes of extras (celery[redis]) that it does not spell out
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    -r requirements.lock
  install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
fi
"${install[@]}" --no-deps --editable .
echo "$wanted" > "$stamp"

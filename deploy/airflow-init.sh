#!/bin/sh
# Before Airflow starts: its tables, its users' passwords, and pools as large as the workers: tasks
# then wait in the scheduler, and one that waits in a queue for long was lost with a worker.
set -eu
umask 077
python - <<'PY'
import json, os
path = os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
names = ("admin", "viewer", "flowsight")
users = {name: os.environ[f"{name.upper()}_PASSWORD"] for name in names}
with open(path, "w") as file:
    json.dump(users, file)
PY
airflow db migrate
# one call: each starts Airflow anew
pools=$(mktemp)
trap 'rm -f "$pools"' EXIT
cat > "$pools" <<JSON
{
  "gpu": {"slots": $GPU_SLOTS, "description": "Slots of GPU tasks, one per GPU", "include_deferred": false},
  "default_pool": {"slots": $CPU_SLOTS, "description": "Slots of all other tasks", "include_deferred": false}
}
JSON
airflow pools import "$pools"

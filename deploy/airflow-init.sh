#!/bin/sh
# Before Airflow starts: its tables, its users' passwords, and pools as large as the workers: tasks
# then wait in the scheduler, and one that waits in a queue for long was lost with a worker.
set -eu
umask 077
python - <<'PY'
import json, os
path = os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
users = {"admin": os.environ["ADMIN_PASSWORD"], "viewer": os.environ["VIEWER_PASSWORD"]}
with open(path, "w") as file:
    json.dump(users, file)
PY
airflow db migrate
airflow pools set gpu "$GPU_SLOTS" "Slots of GPU tasks, one per GPU"
airflow pools set default_pool "$CPU_SLOTS" "Slots of all other tasks, those of the CPU workers"

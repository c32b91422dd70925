#!/bin/bash
# Run once by the PostgreSQL image, on an empty volume: an account and databases for each service.
set -euo pipefail
make() { # account, password, databases...
  local account=$1 password=$2
  shift 2
  # the password goes through a variable of psql, which quotes it
  psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --set password="$password" <<SQL
CREATE ROLE $account LOGIN PASSWORD :'password';
SQL
  for database in "$@"; do
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --command \
      "CREATE DATABASE $database OWNER $account"
  done
}
make airflow "$AIRFLOW_DB_PASSWORD" airflow
make mlflow "$MLFLOW_DB_PASSWORD" mlflow mlflow_auth

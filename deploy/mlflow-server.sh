#!/bin/sh
# MLflow with users: PostgreSQL for runs and accounts, the S3 store for artifacts.
set -eu
umask 077
cat > "$MLFLOW_AUTH_CONFIG_PATH" <<INI
[mlflow]
default_permission = READ
database_uri = $MLFLOW_AUTH_DB
admin_username = admin
admin_password = $MLFLOW_ADMIN_PASSWORD
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"
exec mlflow server --app-name basic-auth --host "${HOST:-0.0.0.0}" --port "${PORT:-5000}" --workers "${MLFLOW_WORKERS:-2}" \
  --artifacts-destination "${MLFLOW_ARTIFACTS:-s3://mlflow/artifacts}" \
  --allowed-hosts "mlflow,mlflow:*,mlflow.flowsight.svc:*,localhost,localhost:*,127.0.0.1,127.0.0.1:*"

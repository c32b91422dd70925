#!/bin/sh
# Write deploy/.env: .env.example with a random value for every secret. Never replaces one.
set -eu
cd "$(dirname "$0")"
if [ -e .env ]; then
  echo "error: expected no deploy/.env, found one; remove it to make new secrets (existing volumes keep the old ones)" >&2
  exit 2
fi
umask 077
trap 'rm -f .env.new' EXIT
while IFS= read -r line; do
  case $line in
    AIRFLOW_FERNET_KEY=) value=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_') ;;
    [A-Z]*=) value=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n') ;;
    *) value= ;;
  esac
  printf '%s%s\n' "$line" "$value"
done < .env.example > .env.new
mv .env.new .env
echo "wrote $(pwd)/.env"

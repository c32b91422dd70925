"""What one DAG makes and another waits for."""

from __future__ import annotations

from airflow.sdk import Asset

RAW_DATA = Asset("raw_data", extra={"what": "videos below data/raw, added by `ingest`"})
RESULTS = Asset("results", extra={"what": "a finished run: branch runs/<run id>, with dvc.lock"})

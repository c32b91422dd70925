# Thin names for one-line commands. `make repro` and `make test` need nothing but Python 3.11 or
# 3.12 and a package index.
SHELL := /bin/bash
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# nobody's pipeline reports home
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := False
export DO_NOT_TRACK := 1

.PHONY: help setup repro test test-fast test-slow test-workers test-services lint format mlflow airflow bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

setup:  ## .venv with the locked packages
	@scripts/setup.sh

JOBS ?= 2
# SYSTEMS="two_stream saliency": these only, with the data that they read; the page waits for all
repro: setup  ## run the pipeline (only what changed), JOBS=2 stages side by side, and say where the results are
	@flowsight repro --jobs $(JOBS) $(addprefix report@,$(SYSTEMS))

test: test-fast test-slow test-workers  ## all tests but test-services

test-fast: setup
	@pytest -m "not slow" -n 2 --dist loadfile

test-slow: setup
	@pytest -m "slow and not services and not workers" -n 2 --dist loadfile

test-workers: setup  ## stages on several workers, and a whole cluster with faults (PostgreSQL, Redis)
	@pytest -m "workers and not services" -n 2 --dist loadfile tests/cluster_services tests/cluster

# not in `make test`, for their minutes: a registry's life on MLflow servers, the served model over
# HTTP, a finished run of the sample, the DAGs in a browser, a cluster's second run over S3. Each part
# of them has a faster test there.
test-services: setup  ## whole servers of MLflow and Airflow, driven by a browser (Chromium)
	@pytest -m services

lint: setup  ## ruff, format check and types
	@ruff check .
	@ruff format --check .
	@mypy

format: setup  ## put the code in order
	@ruff check --fix .
	@ruff format .

mlflow: setup  ## browse the runs on 127.0.0.1:5000
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --host 127.0.0.1 --port 5000 --workers 1 --backend-store-uri sqlite:///mlflow.db

# AIRFLOW="--port 8081 --mlflow-port 5001" chooses other ports
airflow: setup  ## Airflow on 127.0.0.1:8080 with MLflow on :5000; Ctrl-C stops both
	@exec flowsight airflow $(AIRFLOW)

bench: setup  ## seconds and peak memory of every stage
	@python benchmarks/pipeline.py

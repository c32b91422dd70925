"""The files in `deploy/`, as far as they can be checked without a container engine or a cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flowsight.pipeline import dvc_yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
# Compose reads YAML as the pure parser does; libyaml stumbles over a `:` in a plain flow scalar
COMPOSE: dict[str, Any] = YAML(typ="safe", pure=True).load(
    (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {"git-init", "airflow-init", "s3-init"}
REQUIRED = re.compile(r"\$\{(\w+):\?[^}]+\}")


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def made_env(tmp_path: Path) -> dict[str, str]:
    """What deploy/make-env.sh writes."""
    for name in ("make-env.sh", ".env.example"):
        shutil.copy(DEPLOY / name, tmp_path / name)
    done = run(str(tmp_path / "make-env.sh"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert run(str(tmp_path / "make-env.sh")).returncode == 2, "secrets must not be replaced"
    lines = (tmp_path / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]", line))


# Compose ------------------------------------------------------------------------------------------


def test_nothing_starts_without_its_secrets(made_env: dict[str, str]) -> None:
    """Each secret is required, made by make-env.sh, and written nowhere else."""
    text = (DEPLOY / "compose.yaml").read_text()
    required = set(REQUIRED.findall(text))
    assert required == set(made_env)
    others = set(re.findall(r"\$\{(\w+)[:}-]", text)) - required
    assert not {name for name in others if re.search("PASSWORD|SECRET|KEY|TOKEN", name)}
    example = (DEPLOY / ".env.example").read_text()
    assert {f"{name}=" for name in required} <= set(example.splitlines())
    assert len(set(made_env.values())) == len(made_env)
    for name, value in made_env.items():
        pattern = r"[\w-]{43}=" if name == "AIRFLOW_FERNET_KEY" else r"[0-9a-f]{64}"
        assert re.fullmatch(pattern, value), name
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD$|SECRET|FERNET", key):
                assert REQUIRED.search(str(value)), f"{key} is written out"


def test_fernet_key_is_one(made_env: dict[str, str]) -> None:
    from cryptography.fernet import Fernet

    Fernet(made_env["AIRFLOW_FERNET_KEY"])


def test_published_ports_are_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_services_are_whole() -> None:
    declared = set(COMPOSE["volumes"])
    for name, service in SERVICES.items():
        assert "image" in service, name
        assert not str(service["image"]).endswith(":latest")
        if name not in ONCE:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        for volume in service.get("volumes", []):
            source = volume.removeprefix("${FLOWSIGHT_DROP_FOLDER:-").split(":")[0].rstrip("}")
            if source.startswith("."):
                assert (DEPLOY / source).exists() or source == "./drop", volume
            else:
                assert source in declared, volume
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
            else:
                assert how["condition"] == "service_completed_successfully"
                assert other in ONCE


def test_every_queue_has_workers() -> None:
    """With a GPU and without one; `default` is where Airflow's own small tasks go."""
    asked = {str(stage.meta["queue"]) for stage in dvc_yaml.load(ROOT).values()} | {"default"}
    for profile in ("gpu", "no-gpu"):
        served: set[str] = set()
        for service in SERVICES.values():
            command = service.get("command", [])
            active = not service.get("profiles") or profile in service["profiles"]
            if active and "--queues" in command:
                served |= set(command[command.index("--queues") + 1].split(","))
        assert asked <= served
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="no docker-compose to ask")
@pytest.mark.parametrize("profile", ["gpu", "no-gpu"])
def test_docker_compose_reads_it(profile: str, made_env: dict[str, str], tmp_path: Path) -> None:
    """`config` needs no engine. Debian's 1.29 does not know the top-level `name` yet."""
    text = (DEPLOY / "compose.yaml").read_text()
    (tmp_path / "compose.yaml").write_text(re.sub("(?m)^name:.*\n", "", text))
    command = ["docker-compose", "--profile", profile, "-f", "compose.yaml", "config"]
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = dvc_yaml.read_yaml(_written(tmp_path / "out.yaml", done.stdout))
    url = content["services"]["scheduler"]["environment"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert made_env["AIRFLOW_DB_PASSWORD"] in url
    for name in made_env:
        lines = (tmp_path / ".env").read_text().splitlines()
        kept = "\n".join(line for line in lines if not line.startswith(f"{name}="))
        (tmp_path / "less.env").write_text(kept)
        less = run("docker-compose", "--env-file", "less.env", *command[1:], cwd=tmp_path)
        assert less.returncode != 0, name
        assert "make-env.sh" in less.stderr


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# Airflow's settings -------------------------------------------------------------------------------


@cache
def airflow_options() -> dict[str, set[str]]:
    """Section to options, of Airflow and the providers; asked in a process of its own."""
    code = """
import json
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager
found = {s: sorted(d["options"]) for s, d in conf.configuration_description.items()}
for name, info in ProvidersManager().providers.items():
    for section, content in (info.data.get("config") or {}).items():
        found.setdefault(section, []).extend(content["options"])
print("FOUND" + json.dumps(found))
"""
    done = run(sys.executable, "-c", code)
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    return {section: set(options) for section, options in json.loads(line[5:]).items()}


def environments() -> dict[str, str]:
    found: dict[str, str] = {}
    for service in SERVICES.values():
        found |= {k: str(v) for k, v in service.get("environment", {}).items()}
    for container in pod_template()["spec"]["containers"]:
        found |= {entry["name"]: entry.get("value", "") for entry in container["env"]}
    return found


def pod_template() -> dict[str, Any]:
    return dict(dvc_yaml.read_yaml(DEPLOY / "helm/pod-template.yaml"))


@pytest.mark.slow
def test_airflow_knows_every_setting() -> None:
    options = airflow_options()
    named = [name.split("__")[1:] for name in environments() if name.startswith("AIRFLOW__")]
    assert len(named) > 15
    for section, option in named:
        assert option.lower() in options[section.lower()], f"[{section}] {option}"
    values = dvc_yaml.read_yaml(DEPLOY / "helm/airflow-values.yaml")
    for section, content in values["config"].items():
        assert set(content) <= options[section], section


@pytest.mark.slow
def test_bundles_load_their_class() -> None:
    values = dvc_yaml.read_yaml(DEPLOY / "helm/airflow-values.yaml")
    name = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
    bundles = json.loads(environments()[name]) + values["dagProcessor"]["dagBundleConfigList"]
    code = (
        "import sys, importlib, inspect; m, c = sys.argv[1].rsplit('.', 1);"
        "print(','.join(inspect.signature(getattr(importlib.import_module(m), c)).parameters))"
    )
    for bundle in bundles:
        done = run(sys.executable, "-c", code, bundle["classpath"])
        assert set(bundle["kwargs"]) <= set(done.stdout.split()[-1].split(","))


# images -------------------------------------------------------------------------------------------


def locked() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text()
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==([^ ;\\]+)", text))


def test_control_image_is_light_and_locked() -> None:
    """Its packages are those of the lock; torch and DVC come with none of them (see docs)."""
    lines = (DEPLOY / "control-plane.in").read_text().splitlines()
    names = {line for line in lines if line and not line.startswith("#")}
    assert names <= set(locked())
    assert not names & {"torch", "dvc", "mlflow", "great-expectations"}


def test_dockerfile_copies_what_is_there() -> None:
    """Sources exist and pass the ignore file; stages that are named exist."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    stages = set(re.findall(r"(?m)^FROM \S+ AS (\S+)", text))
    targets = {s["build"]["target"] for s in SERVICES.values() if "build" in s}
    assert targets <= stages
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"(?m)^COPY (.*)", text):
        words = line.split()
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in allowed, source
    assert re.findall(r"(?m)^USER (\S+)", text) == ["flowsight", "flowsight"]


@pytest.mark.parametrize(
    "path", sorted([*DEPLOY.glob("*.sh"), *DEPLOY.glob("*/*.sh")]), ids=lambda p: p.name
)
def test_scripts_parse(path: Path) -> None:
    shell = path.read_text().splitlines()[0].removeprefix("#!/bin/")
    assert run(shell, "-n", str(path)).stderr == ""
    assert os.access(path, os.X_OK)


@pytest.mark.slow
def test_buckets_are_made_once() -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        access = {
            "AWS_ACCESS_KEY_ID": "flowsight",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        command = [sys.executable, str(DEPLOY / "make_buckets.py"), *_names_of_buckets()]
        for _ in range(2):
            done = run(*command, env={**os.environ, **access})
            assert done.returncode == 0, done.stderr
        store = boto3.client(
            "s3",
            endpoint_url=access["AWS_ENDPOINT_URL"],
            aws_access_key_id="flowsight",
            aws_secret_access_key="x",
            region_name="us-east-1",
        )
        assert {bucket["Name"] for bucket in store.list_buckets()["Buckets"]} == _urls_buckets()
    finally:
        server.stop()


def _names_of_buckets() -> list[str]:
    return list(SERVICES["s3-init"]["command"][2:])


def _urls_buckets() -> set[str]:
    """Buckets that anything in deploy/ writes to."""
    files = ("compose.yaml", "dvc/config", "mlflow-server.sh", "helm/pod-config.yaml")
    return {b for f in files for b in re.findall(r"s3://([\w-]+)", (DEPLOY / f).read_text())}


# Kubernetes ---------------------------------------------------------------------------------------


def check_keys(value: Any, kind: str, where: str) -> None:
    """Every key must be one that the Kubernetes client's model of this kind has."""
    from kubernetes.client import models

    inner = re.fullmatch(r"list\[(.*)\]", kind)
    if inner:
        assert isinstance(value, list), where
        for i, item in enumerate(value):
            check_keys(item, inner[1], f"{where}[{i}]")
    elif hasattr(models, kind):
        model = getattr(models, kind)
        types = {model.attribute_map[k]: t for k, t in model.openapi_types.items()}
        for key, item in value.items():
            assert key in types, f"{where}.{key} is no field of {kind}"
            check_keys(item, types[key], f"{where}.{key}")
    elif kind in ("str", "int", "bool"):
        assert type(value).__name__ == kind, f"{where} is {value!r}, expected {kind}"


def test_manifests_have_known_fields() -> None:

    kinds = {"Pod": "V1Pod", "Deployment": "V1Deployment", "Service": "V1Service"}
    for name in ("pod-template.yaml", "mlflow.yaml"):
        for document in YAML(typ="safe", pure=True).load_all((DEPLOY / "helm" / name).read_text()):
            check_keys(document, kinds[document["kind"]], f"{name}:{document['kind']}")
    values = dvc_yaml.read_yaml(DEPLOY / "helm/airflow-values.yaml")
    check_keys(values["env"], "list[V1EnvVar]", "env")
    check_keys(values["volumes"], "list[V1Volume]", "volumes")
    check_keys(values["apiServer"]["extraInitContainers"], "list[V1Container]", "initContainers")


def test_unknown_fields_would_be_found() -> None:
    with pytest.raises(AssertionError, match="no field of V1Container"):
        check_keys({"spec": {"containers": [{"imge": "x"}]}}, "V1Pod", "pod")


def test_pod_template_has_the_container_that_airflow_fills() -> None:
    """The executor replaces image and command of the container `base`."""
    spec = pod_template()["spec"]
    assert [container["name"] for container in spec["containers"]] == ["base"]
    assert spec["restartPolicy"] == "Never"
    mounted = {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.slow
def test_gpu_stages_get_a_gpu_and_its_machines() -> None:
    """What the operator makes of pod-config.yaml for a training and for a data stage."""
    code = """
import json
from kubernetes.client import ApiClient
from flowsight.pipeline.nodes import Needs
from flowsight_dags import pods
found = {}
for needs in (Needs(gpus=1, memory_gb=8, queue="gpu"), Needs(gpus=0, memory_gb=4, queue="cpu")):
    settings = pods.settings(needs)
    found[needs.queue] = ApiClient().sanitize_for_serialization(settings)
print("FOUND" + json.dumps(found))
"""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "dags"),
        "FLOWSIGHT_RUNNER": "kubernetes",
        "FLOWSIGHT_POD_CONFIG": str(DEPLOY / "helm/pod-config.yaml"),
    }
    done = run(sys.executable, "-c", code, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert lines, done.stderr[-2000:]
    found = json.loads(lines[0][5:])
    assert found["gpu"]["container_resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert found["gpu"]["node_selector"] == {"flowsight/pool": "gpu"}
    assert found["gpu"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "nvidia.com/gpu" not in found["cpu"]["container_resources"]["limits"]
    asked = {str(stage.meta["queue"]) for stage in dvc_yaml.load(ROOT).values()}
    config = dvc_yaml.read_yaml(DEPLOY / "helm/pod-config.yaml")
    assert asked <= set(config["queues"])

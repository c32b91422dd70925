"""What the forms ask for, and what is made of the answers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from flowsight_dags import config

# one `key=value` a line; no spaces, so nothing can hide behind one
OVERRIDES = r"^(\s*[A-Za-z_][\w.]*=\S+[ \t]*(\n|$))*\s*$"
_FIELDS = {"dataset", "recipe", "seed", "systems"}


def retrain() -> dict[str, Param]:
    """The form of a retraining; the defaults are those of `params.yaml`."""
    defaults: Any = config.params()
    systems = config.systems()
    return {
        "dataset": Param(
            defaults["dataset"]["name"],
            enum=config.choices("dataset"),
            title="Data set",
            description="A file of conf/dataset; its videos must have been imported.",
        ),
        "recipe": Param(
            defaults["recipe"],
            enum=config.choices("recipe"),
            title="Recipe",
            description="How long and how large: smoke takes minutes, paper takes GPUs and days.",
        ),
        "systems": Param(
            systems,
            type="array",
            items={"type": "string", "enum": systems},
            examples=systems,
            minItems=1,
            uniqueItems=True,
            title="Systems",
            description="Which systems to train.",
        ),
        "overrides": Param(
            "",
            type=["string", "null"],
            format="multiline",
            maxLength=2000,
            pattern=OVERRIDES,
            title="Parameters",
            description="One key=value a line, for instance "
            "systems.two_stream.rows.spatial.train.epochs=3.",
        ),
        "seed": Param(
            None,
            type=["integer", "null"],
            minimum=0,
            maximum=2**31 - 1,
            title="Seed",
            description="Empty: the recipe's.",
        ),
        "rev": Param(
            config.load().rev,
            type="string",
            maxLength=200,
            pattern=r"^[A-Za-z0-9][\w./-]*$",
            title="Revision",
            description="Branch or commit that the run starts from.",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Run everything again",
            description="Also what did not change.",
        ),
    }


def model() -> Param:
    """Which registered model; one per system."""
    served = config.served()
    return Param(served[0], enum=served, title="Model")


def run_id(airflow_run_id: str) -> str:
    """Airflow's name of a run in characters that a git branch may have."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", airflow_run_id).strip("-")


def settings(params: Mapping[str, Any]) -> list[str]:
    """The form's answers as `key=value` for `flowsight prepare --set`.

    Raises:
        ValueError: a parameter is given that has a field of its own.
    """
    found = [f"dataset={params['dataset']}", f"recipe={params['recipe']}"]
    if params["seed"] is not None:
        found.append(f"seed={params['seed']}")
    if set(params["systems"]) != set(config.systems()):
        found.append(f"systems={','.join(params['systems'])}")
    for line in (params["overrides"] or "").split():
        key = line.split("=", 1)[0]
        if key in _FIELDS:
            raise ValueError(f"Parameters: `{line}` has a field of its own in the form; use that")
        found.append(line)
    return found


def prepare_arguments(params: Mapping[str, Any], run: str, rev: str) -> list[str]:
    """Arguments of `flowsight prepare`."""
    pairs = [part for pair in settings(params) for part in ("--set", pair)]
    return ["prepare", "--run-id", run, "--rev", rev, *pairs]


def shown(arguments: list[str]) -> str:
    """A command as a person would type it."""
    return shlex.join(["flowsight", *arguments])

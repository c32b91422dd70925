"""`flowsight airflow`: Airflow and MLflow on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("airflow")(airflow)


def airflow(
    port: Annotated[int, typer.Option(help="Of Airflow, on 127.0.0.1.")] = 8080,
    mlflow_port: Annotated[int, typer.Option(help="Of MLflow, on 127.0.0.1.")] = 5000,
    home: Annotated[Path, typer.Option(help="Database, logs, secrets, DVC remote.")] = Path(
        "build/airflow"
    ),
) -> None:
    """Run Airflow and MLflow here until Ctrl-C; the log-in is printed."""
    from flowsight.standalone import settings, stack

    setup = settings.Setup(root=Path.cwd(), home=home.resolve(), port=port, mlflow_port=mlflow_port)
    stack.run(setup)

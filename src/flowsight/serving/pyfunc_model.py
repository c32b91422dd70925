"""The model that MLflow serves, as code: no pickle, weights as tensors from the bundle.

MLflow runs this file when it loads the model (`mlflow.pyfunc.log_model(python_model=<this file>,
artifacts={"bundle": <folder of write_bundle>}, ...)`).
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType, Array

ARTIFACT = "bundle"
"""Name of the artifact that holds the bundle."""
_TYPES: dict[str, Any] = {
    "string": DataType.string,
    "double": DataType.double,
    "long": DataType.long,
    "string[]": Array(DataType.string),
    "double[]": Array(DataType.double),
    "any": AnyType(),
}

_EXAMPLES = {"video": {"video": "Walk/walk_01.avi"}, "image": {"image": "flower.jpg"}}


class VideoModel(mlflow.pyfunc.PythonModel):
    """What a system says of videos or images, see `flowsight.serving.answering`."""

    def load_context(self, context: Any) -> None:
        """Read the bundle and the server's settings; both are checked before it serves."""
        from flowsight.serving import bundle, settings

        self.settings = settings.from_environment()
        self.bundle = bundle.load_bundle(context.artifacts[ARTIFACT])

    # MLflow takes the hint for a schema, and warns of hints it cannot use
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """One answer a row: what the system says, more on request; `error` where it failed.

        Args:
            context: MLflow's.
            model_input: table (or a mapping, or a list of them) with `video` or `image` (path below
                the served folder, or a URL where allowed) or `content` (base64), and if wanted what
                else `signature` lists.
            params: none are used.
        """
        from flowsight.serving import answering

        return answering.answer(self.bundle, rows_of(model_input), self.settings)


def rows_of(model_input: Any) -> list[dict[str, Any]]:
    """Rows of a table, of a mapping of columns or values, or of a list of mappings."""
    if isinstance(model_input, dict):
        columns = {k: v if isinstance(v, (list, tuple)) else [v] for k, v in model_input.items()}
        model_input = pd.DataFrame(columns)
    if isinstance(model_input, pd.DataFrame):
        records = model_input.to_dict("records")
        return [{str(name): value for name, value in row.items()} for row in records]
    return [dict(row) for row in model_input]


def signature(system: str) -> tuple[ModelSignature, pd.DataFrame]:
    """Columns in and out, and an example of the input.

    Args:
        system: whose answers.

    Raises:
        InputError: no such system.
    """
    from flowsight import contract

    own = contract.find(system)
    kinds = {own.INPUT: "string", "content": "string"}
    kinds |= {"top": "long"} if own.TOP else {}
    kinds |= {own.REQUEST: "boolean"}
    inputs = Schema([ColSpec(kind, name, required=False) for name, kind in kinds.items()])
    columns = {own.INPUT: "string", **own.OUTPUTS, "seconds": "any", "error": "string"}
    outputs = Schema(
        [ColSpec(_TYPES[kind], name, required=False) for name, kind in columns.items()]
    )
    values = {**_EXAMPLES[own.INPUT], "top": 3, own.REQUEST: False}
    example = pd.DataFrame({name: [values[name]] for name in kinds if name in values})
    return ModelSignature(inputs=inputs, outputs=outputs), example


mlflow.models.set_model(VideoModel())

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


class VideoModel(mlflow.pyfunc.PythonModel):
    """Class scores of videos, see `flowsight.serving.answering`."""

    def load_context(self, context: Any) -> None:
        """Read the bundle and the server's settings; both are checked before it serves."""
        from flowsight.serving import bundle, settings

        self.settings = settings.from_environment()
        self.bundle = bundle.load_bundle(context.artifacts[ARTIFACT])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[dict[str, Any]]:
        """One answer a row: label, scores, attention on request; `error` where it failed.

        Args:
            context: MLflow's.
            model_input: table or mapping with `video` (path below the served folder, or a URL
                where allowed) or `content` (base64), and if wanted `top` and `attention`.
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


def signature() -> tuple[ModelSignature, pd.DataFrame]:
    """Columns in and out, and an example of the input."""
    kinds = {"video": "string", "content": "string", "top": "long", "attention": "boolean"}
    inputs = Schema([ColSpec(kind, name, required=False) for name, kind in kinds.items()])
    outputs = Schema(
        [
            ColSpec(DataType.string, "video", required=False),
            ColSpec(DataType.string, "label", required=False),
            ColSpec(DataType.double, "score", required=False),
            ColSpec(Array(DataType.string), "classes", required=False),
            ColSpec(Array(DataType.double), "scores", required=False),
            ColSpec(AnyType(), "probabilities", required=False),
            ColSpec(DataType.long, "num_frames", required=False),
            ColSpec(DataType.double, "duration_sec", required=False),
            ColSpec(AnyType(), "seconds", required=False),
            ColSpec(AnyType(), "attention", required=False),
            ColSpec(DataType.string, "error", required=False),
        ]
    )
    example = pd.DataFrame({"video": ["Walk/walk_01.avi"], "top": [3], "attention": [False]})
    return ModelSignature(inputs=inputs, outputs=outputs), example


mlflow.models.set_model(VideoModel())

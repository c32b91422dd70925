"""The real servers: `mlflow models serve` and `mlflow models predict` on the saved model."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowsight.serving import prediction
from flowsight.serving.bundle import Bundle

from .conftest import CLASSES

pytestmark = pytest.mark.slow

START_SEC = 300


@pytest.fixture(scope="module")
def saved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as MLflow stores it."""
    import mlflow

    from flowsight.serving import pyfunc_model

    out = tmp_path_factory.mktemp("mlflow") / "model"
    signature, example = pyfunc_model.signature("two_stream")
    mlflow.pyfunc.save_model(
        out,
        python_model=pyfunc_model.__file__,
        artifacts={pyfunc_model.ARTIFACT: str(folder)},
        signature=signature,
        input_example=example,
        pip_requirements=[],
    )
    return out


def environment(videos: Path) -> dict[str, str]:
    mine = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLOWSIGHT_SERVE_ROOT": str(videos),
        "FLOWSIGHT_SERVE_MAX_SEC": "3.5",
        "FLOWSIGHT_SERVE_MAX_MB": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return {**os.environ, **mine}


def mlflow_command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / "mlflow"), "models", *arguments]


@pytest.fixture(scope="module")
def server(saved: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "server.txt"
    command = mlflow_command(
        "serve", "-m", str(saved), "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)
    )
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=environment(videos), stdout=file, stderr=file, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, process, log)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(START_SEC * 2):
        try:
            assert get(f"{address}/ping") == 200
            return
        except OSError:
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.5)
    pytest.fail(f"no server after {START_SEC} s: {log.read_text()[-3000:]}")


def get(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(answer.status)


def post(server: str, body: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server}/invocations", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def predict(server: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    status, answer = post(server, {"dataframe_records": list(rows)})
    assert status == 200, answer
    return list(answer["predictions"])


def check_alive(server: str, system: Bundle, videos: Path) -> None:
    """It still answers, and right."""
    (found,) = predict(server, {"video": "walk.avi"})
    check_right(found, system, videos)


def check_right(found: dict[str, Any], system: Bundle, videos: Path) -> None:
    assert found["error"] is None
    expected = prediction.predict_video(system, videos / "walk.avi").probs
    for stream, probs in expected.items():
        told = [found["probabilities"][stream][name] for name in CLASSES]
        np.testing.assert_allclose(told, probs, rtol=0, atol=1e-5)


def test_paths_and_bytes(server: str, system: Bundle, videos: Path) -> None:
    content = base64.b64encode((videos / "walk.avi").read_bytes()).decode()
    check_right(predict(server, {"video": "walk.avi"})[0], system, videos)
    check_right(predict(server, {"content": content})[0], system, videos)


def test_other_shapes_of_requests(server: str, system: Bundle, videos: Path) -> None:
    split = {"columns": ["video", "top"], "data": [["walk.avi", 2]]}
    for body in ({"dataframe_split": split}, {"inputs": {"video": ["walk.avi"], "top": [2]}}):
        status, answer = post(server, body)
        assert status == 200, answer
        (found,) = answer["predictions"]
        check_right(found, system, videos)
        assert len(found["classes"]) == 2


def test_attention_on_request(server: str) -> None:
    (found,) = predict(server, {"video": "walk.avi", "attention": True})
    picture = base64.b64decode(found["attention"]["spatial"]["picture"])
    assert picture.startswith(b"\x89PNG")
    assert np.array(found["attention"]["temporal"]["maps"]).ndim == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"video": "text.avi"}, "readable video, got not a video"),
        ({"video": "noise.avi"}, "readable video, got"),
        ({"content": base64.b64encode(b"hello").decode()}, "readable video, got not a video"),
        ({"content": "no base64"}, "as base64"),
        ({"content": "A" * 2_000_000}, "at most 1 MB"),
        ({"video": "../secret.avi"}, "below the served folder"),
        ({"video": "out.avi"}, "below the served folder"),
        ({"video": "/etc/passwd"}, "below the served folder"),
        ({"video": "deep/long.mp4"}, "4.0 s where at most 3.5 s"),
        ({"video": "http://127.0.0.1:9/x.avi"}, "takes no URLs"),
        ({"video": "walk.avi", "top": -1}, "`top` of at least 1"),
        ({"video": 5}, "expected text, got int"),
    ],
)
def test_bad_rows_get_one_line(
    row: dict[str, Any], message: str, server: str, system: Bundle, videos: Path
) -> None:
    (found,) = predict(server, row)
    assert message in found["error"]
    assert "\n" not in found["error"] and str(videos) not in found["error"]
    assert found["label"] is None
    check_alive(server, system, videos)


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"{}",
        {"dataframe_records": [{"video": "walk.avi", "top": "many"}]},
        {"nonsense": 1},
    ],
)
def test_bad_requests_are_the_clients_fault(
    body: Any, server: str, system: Bundle, videos: Path
) -> None:
    status, _ = post(server, body)
    assert status in (400, 422)
    check_alive(server, system, videos)


def test_requests_side_by_side(server: str, system: Bundle, videos: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    rows = [{"video": "walk.avi"}, {"video": "text.avi"}, {"video": "in.avi"}]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda row: predict(server, row)[0], rows))
    assert answers[1]["error"] is not None
    for found in (answers[0], answers[2]):
        check_right(found, system, videos)


def test_mlflow_models_predict(saved: Path, system: Bundle, videos: Path, tmp_path: Path) -> None:
    request = {"dataframe_records": [{"video": "walk.avi"}, {"video": "text.avi"}]}
    (tmp_path / "in.json").write_text(json.dumps(request))
    command = mlflow_command(
        "predict", "-m", str(saved), "-i", str(tmp_path / "in.json"), "-o",
        str(tmp_path / "out.json"), "-t", "json", "--env-manager", "local",
    )  # fmt: skip
    done = subprocess.run(
        command, env=environment(videos), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    good, bad = json.loads((tmp_path / "out.json").read_text())["predictions"]
    check_right(good, system, videos)
    assert "readable video" in bad["error"]

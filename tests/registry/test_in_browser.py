"""What a model's owner sees in MLflow: a server as `make mlflow` starts it, over real runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowsight.evaluation import figures, overlays
from flowsight.registry import candidate, store
from flowsight.tracking import spool
from flowsight.tracking.delivery import Delivery

from .conftest import World, free_port, stop_server

pytestmark = pytest.mark.slow
MODEL = "two_stream"
SHOTS = os.environ.get("FLOWSIGHT_SCREENSHOTS")
"""A folder to keep pictures of the pages in."""


@dataclass(frozen=True)
class Site:
    """The server and what is in it."""

    url: str
    experiment: str
    parent: str
    child: str
    registered: str


def log_training(folder: Path, uri: str, name: str, rate: float) -> None:
    data = {"name": "toy", "path": "data/raw/toy", "digest": f"{'a1' * 16}.dir"}
    start = {
        "name": name,
        "uri": uri,
        "params": {"train.lr": str(rate)},
        "host": "here",
        "tags": {"dataset": "toy"},
        "run_id": "repro-1",
        "datasets": [{**data, "context": "training"}],
    }
    kept = spool.Spool(folder, start)
    for epoch in range(1, 21):
        kept.log({"train_loss": 2 * np.exp(-rate * epoch), "val_accuracy": epoch / 25}, epoch)
    kept.close("FINISHED")
    assert Delivery(kept.path).advance()


def draw(folder: Path) -> dict[str, Path]:
    """A confusion matrix and an overlay, as the evaluation draws them."""
    rng = np.random.default_rng(0)
    counts = np.array([[9, 1], [2, 8]])
    confusion, overlay = folder / "confusion.png", folder / "overlay.png"
    figures.confusion_figure({"attention · fused": counts}, ["Up", "Down"], confusion)
    image = rng.integers(0, 255, (240, 320, 3)).astype(np.uint8)
    lit = overlays.spotlight(image, rng.random((240, 320)), shade=(12, 14, 22))
    panels = overlays.Panels(
        frame_index=0, frame=image, frame_attended=lit, flow=image, flow_attended=lit
    )
    figures.overlay_figure(panels, label="Up", predicted="Up", prob=0.9, path=overlay)
    return {"confusion/attention.png": confusion, "overlays/Up__a.png": overlay}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two trainings of one run of the pipeline and a champion, in the file that is the default."""
    folder = tmp_path_factory.mktemp("browser")
    uri = f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        for name, rate in (("spatial-1", 0.1), ("temporal-1", 0.3)):
            log_training(folder, uri, name, rate)
        registry = store.connect()
        world = World(registry, folder, MODEL)
        made = replace(world.candidate(**{"dvc.data": "b" * 32}), evaluation=draw(folder))
        version = candidate.publish(registry, made, world.served)
        registry.point(MODEL, "champion", version.version)
        found = registry.client.search_runs(["1"])
    ids = {run.info.run_name: run.info.run_id for run in found}
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", uri]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until_healthy(server, f"http://127.0.0.1:{port}/health")
        yield Site(
            f"http://127.0.0.1:{port}", "1", ids["repro-1"], ids["temporal-1"], version.run_id
        )
    finally:
        stop_server(server)


def wait_until_healthy(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 240
    while True:
        assert server.poll() is None and time.monotonic() < deadline
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.2)


@pytest.fixture(scope="module")
def page(site: Site, chromium_path: str) -> Iterator[Any]:
    """A tab of a real browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"]
        )
        tab = chromium.new_page(viewport={"width": 1500, "height": 900})
        tab.set_default_timeout(60_000)
        yield tab
        chromium.close()


def shoot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def test_trainings_stand_below_their_run(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/#/experiments/{site.experiment}/runs")
    page.get_by_text("repro-1").first.wait_for()
    shoot(page, "runs")
    page.goto(f"{site.url}/#/experiments/{site.experiment}/runs/{site.child}")
    page.get_by_text("train.lr").first.wait_for()
    page.get_by_text("repro-1").first.wait_for()  # "parent run"
    page.get_by_text("toy (a1a1").first.wait_for()  # the data set, with DVC's hash
    shoot(page, "run")


def test_charts_of_the_epochs(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/#/experiments/{site.experiment}/runs/{site.child}/model-metrics")
    page.get_by_text("train_loss").first.wait_for()
    page.locator(".js-plotly-plot .scatterlayer path.js-line").first.wait_for()
    shoot(page, "charts")


def test_pictures_of_the_registered_version(site: Site, page: Any) -> None:
    runs = f"{site.url}/#/experiments/{site.experiment}/runs/{site.registered}"
    for folder, picture in (("confusion", "attention.png"), ("overlays", "Up__a.png")):
        page.goto(f"{runs}/artifacts")
        page.reload()
        for name in ("evaluation", folder, picture):
            page.get_by_text(name, exact=True).first.click()
        shown = page.locator("img[src^='blob:'], img[src*='artifact'], .rc-image img").first
        shown.wait_for()
        assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
        shoot(page, folder)


def test_the_model_and_its_alias(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/#/models/{MODEL}")
    page.get_by_text("Version 1").first.wait_for()
    page.get_by_text("champion").first.wait_for()
    shoot(page, "model")

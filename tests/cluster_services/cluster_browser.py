"""The cluster's Airflow in a browser."""

from __future__ import annotations

from cluster_topology import Cluster
from playwright.sync_api import sync_playwright


def look_at_run(cluster: Cluster, run: str, chromium_path: str) -> tuple[str, str]:
    """Log in, open a run of `retrain`, show its graph.

    Returns:
        What stands on the run's page, and on the nodes of its graph.
    """
    airflow = f"http://127.0.0.1:{cluster.ports['airflow']}"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1500, "height": 900})
        page.goto(airflow)
        page.fill("input[name=username]", "viewer")
        page.fill("input[name=password]", cluster.password)
        page.click("button[type=submit]")
        page.wait_for_selector("text=Dags", timeout=60_000)
        page.goto(f"{airflow}/dags/retrain/runs/{run}")
        page.wait_for_selector("text=publish", timeout=60_000)
        page.wait_for_selector("text=git checkout", timeout=60_000)  # the note, loaded by itself
        text = page.inner_text("body")
        page.get_by_label("Show Graph").first.click()
        page.wait_for_selector(".react-flow__node", timeout=60_000)
        nodes = " ".join(page.locator(".react-flow__node").all_inner_texts())
        chromium.close()
    return text, nodes

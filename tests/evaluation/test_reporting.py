"""The HTML page: what it says, and that a real browser likes it."""

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flowsight import reporting
from flowsight.contract import Folders
from flowsight.errors import InputError
from flowsight.files import write_json
from flowsight.reporting import charts, formats
from flowsight.reporting.charts import Line
from flowsight.systems.two_stream import evaluate, schedules
from flowsight.systems.two_stream.params import FusionParams

from .conftest import changed, started, write_page

World = SimpleNamespace


def write(world: World, results: Path, out: Path) -> str:
    return write_page(
        ["two_stream"],
        results=results,
        history=world.root / "history",
        validation=world.root / "validation",
        manifest=world.root / "manifest",
        params=world.params,
        out=out,
    )


@pytest.fixture(scope="module")
def folder(world_template: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `two_stream` (results) and `report` (the page)."""
    root = tmp_path_factory.mktemp("report")
    evaluate.evaluate(world_template.params, world_template.folders, root / "two_stream")
    write(world_template, root, root / "report")
    return root


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report/index.html").read_text(encoding="utf-8")


def test_page_has_every_part(page: str, world_template: World) -> None:
    for part in ("results", "attention", "localization", "paper", "confusion", "training", "data",
                 "quarantine", "validation", "parameters"):  # fmt: skip
        assert f'id="{part}"' in page, part
    assert "file of zero bytes" in page
    assert "None of these pairs may be compared" in page
    assert "71.2" in page  # printed by the paper
    assert "Nobody drew these masks" not in page
    assert page.count("<img ") == world_template.params.system("two_stream").evaluate.num_overlays
    assert page.count("<polyline") == 4 * 2 * 2 * 2  # rows x splits x subsets x quantities


def test_page_says_where_masks_are_a_stand_in(
    world_template: World, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "two_stream", tmp_path / "two_stream")
    table = tmp_path / "two_stream/localization.csv"
    text = table.read_text()
    assert ",true\n" in text
    table.write_text(text.replace(",true\n", ",background difference\n"))
    page = write(world_template, tmp_path, tmp_path / "report")
    assert "Nobody drew these masks: they come from background difference" in page


def test_page_stands_alone(page: str) -> None:
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script" not in page and "url(" not in page and "@import" not in page


def test_same_input_same_page(world_template: World, folder: Path, page: str) -> None:
    assert write(world_template, folder, folder / "again") == page


@pytest.mark.parametrize(
    ("difference", "low", "high", "says"),
    [
        (0.1, 0.02, 0.2, "is larger than resampling the clips explains"),
        (-0.1, -0.2, -0.02, "Attention costs accuracy here"),
        (0.0, -0.1, 0.1, "may be chance"),
    ],
)
def test_the_sentence_follows_the_interval(
    world_template: World,
    folder: Path,
    tmp_path: Path,
    difference: float,
    low: float,
    high: float,
    says: str,
) -> None:
    results = tmp_path / "results"
    shutil.copytree(folder / "two_stream", results / "two_stream")
    table = pd.read_csv(results / "two_stream/comparisons.csv")
    between = table.method.str.endswith("/fused") & table.baseline.str.endswith("/fused")
    table.loc[between, ["difference", "low", "high"]] = difference, low, high
    table.to_csv(results / "two_stream/comparisons.csv", index=False)
    text = write(world_template, results, tmp_path / "report")
    sentences = ["is larger than resampling", "Attention costs accuracy here", "may be chance"]
    assert [s for s in sentences if s in text] == [s for s in sentences if s in says]


def test_a_study_shows_the_headline_against_its_controls(
    world_template: World, tmp_path: Path
) -> None:
    params = world_template.params
    block = params.system("two_stream")
    two, attended = block.evaluate.fusions.values()
    control = started(block.rows["spatial_attended"], map_control="shuffled")
    fusions = {
        "two_stream": two,
        "attention": attended,
        "shuffled": FusionParams(spatial="spatial_shuffled", temporal="temporal_shuffled"),
        "to_spatial": FusionParams(spatial=attended.spatial, temporal="temporal"),
    }
    rows = {**block.rows, "spatial_shuffled": control, "temporal_shuffled": control}
    numbers = {"fusions": fusions, "headline": "attention"}
    studied = changed(params, "two_stream", rows=rows, evaluate=numbers)
    study = World(**vars(world_template) | {"params": studied})
    predictions = tmp_path / "predictions"
    shutil.copytree(world_template.folders["predictions"], predictions)
    for split in params.splits.ids:
        for stream in ("spatial", "temporal"):
            source = predictions / f"{stream}-{split}"
            shutil.copytree(source, predictions / f"{stream}_shuffled-{split}")
    folders = Folders({**world_template.folders, "predictions": predictions})
    evaluate.evaluate(study.params, folders, tmp_path / "results/two_stream")
    page = write(study, tmp_path / "results", tmp_path / "report")
    table = page[page.index('id="controls"') :]
    table = table[: table.index("</table>")]
    assert "With attention, against" in table
    assert re.findall(r'<th scope="row">(.*?)</th>', table) == [
        "Control, shuffled maps", "Attention to spatial only"]  # fmt: skip
    assert '<div class="what">Fused, with attention</div>' in page, "not the last one"


def test_both_schedules_are_drawn_over_all_epochs(world_template: World, tmp_path: Path) -> None:
    """Phase 2 goes on where phase 1 ended; nothing is drawn where only one way was gone."""
    params = world_template.params
    history = world_template.root / "history"
    assert schedules.content(history, params) == []

    pair = {"spatial": "temporal", "temporal": "spatial"}
    turns = {
        f"{own}_turns": started(params.row(own), maps=f"{other}_turns")
        for own, other in pair.items()
    }
    rows = params.system("two_stream").rows | turns
    params = changed(params, "two_stream", rows=rows, evaluate={"headline": "attention"})
    both = tmp_path / "history"
    shutil.copytree(history, both)
    for own in pair:
        for split in params.splits.ids:
            shutil.copy(both / f"{own}-{split}.csv", both / f"{own}_turns-{split}.csv")
    cards = schedules.content(both, params)
    assert [card["stream"] for card in cards] == ["spatial", "temporal"]
    num = {
        row: int(pd.read_csv(both / f"{row}-{params.splits.ids[0]}.csv")["epoch"].max())
        for row in ("spatial", "spatial_attended", "spatial_turns")
    }
    for chart in cards[0]["charts"]:
        phased, turned = re.findall(r'<polyline class="l spatial( turns)?" points="(.*?)"', chart)
        assert (phased[0], turned[0]) == ("", " turns")
        assert len(phased[1].split()) == num["spatial"] + num["spatial_attended"]
        assert len(turned[1].split()) == num["spatial_turns"]
        assert phased[1].split()[: num["spatial"]] == turned[1].split(), "the same epochs"


def test_a_system_without_its_part_is_named(
    world_template: World, folder: Path, tmp_path: Path
) -> None:
    parts = folder / "report-parts"
    with pytest.raises(InputError, match=r"residual3d/part\.json, found no such file; run the st"):
        reporting.write_page(parts=parts, params=world_template.params, out=tmp_path / "report")
    assert not (tmp_path / "report").exists()
    with pytest.raises(InputError, match=r"metrics\.json, found no such"):
        write(world_template, tmp_path / "nothing", tmp_path / "report")


def test_the_page_puts_parts_together_in_the_parameters_order(
    world_template: World, tmp_path: Path
) -> None:
    for name in ("two_stream", "saliency", "gone"):
        told = {"id": name, "title": f"Of {name}", "overlays": False, "curves": False}
        write_json(told, tmp_path / f"parts/{name}/part.json")
        (tmp_path / f"parts/{name}/part.html").write_text(f"<section id='{name}'>made</section>")
    systems = {name: world_template.params.system(name) for name in ("saliency", "two_stream")}
    params = dataclasses.replace(world_template.params, systems=systems)
    reporting.write_page(parts=tmp_path / "parts", params=params, out=tmp_path / "page")
    page = (tmp_path / "page/index.html").read_text()
    assert re.findall("<section id='(.*?)'>made", page) == ["saliency", "two_stream"]
    assert re.findall('<a href="#(.*?)">', page) == ["saliency", "two_stream", "parameters"]
    assert "gone" not in page
    assert 'id="data"' not in page, "no system sees clips"


def test_page_without_history_truth_or_reports(
    world_template: World, folder: Path, tmp_path: Path
) -> None:
    """What is not there is not shown; the rest is."""
    root = tmp_path / "w"
    shutil.copytree(world_template.root, root, ignore=shutil.ignore_patterns("history"))
    for report in (root / "validation").rglob("report.json"):
        report.unlink()
    text = write(World(root=root, params=world_template.params), folder, tmp_path / "out")
    assert 'id="training"' not in text and 'id="validation"' not in text
    assert 'id="results"' in text


def test_names_from_data_are_escaped(world_template: World, folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "w"
    shutil.copytree(world_template.root, root)
    status = root / "validation/clips/status.csv"
    status.write_text(status.read_text().replace("file of zero bytes", "<script>alert(1)</script>"))
    text = write(World(root=root, params=world_template.params), folder, tmp_path / "out")
    assert "&lt;script&gt;" in text and "<script>" not in text


def test_line_chart_places_points() -> None:
    line = Line(x=[0, 10], y=[0.0, 1.0], style="l", name="a<b")
    svg = charts.line_chart([line], title="t", top=1.0)
    assert 'points="34.0,148.0 274.0,24.0"' in svg
    assert "a&lt;b" in svg
    gap = charts.line_chart([Line(x=[1, 2, 3], y=[1, np.nan, 1], style="l", name="n")], title="t")
    assert len(re.findall(r"\d+\.\d,\d+\.\d", gap)) == 2


@pytest.mark.parametrize(
    ("value", "ceiling"),
    [(0.9, 1), (1.0, 1), (2.1, 2.5), (3, 5), (51, 100), (0, 1), (0.004, 0.005)],
)
def test_nice_ceiling(value: float, ceiling: float) -> None:
    assert charts.nice_ceiling(value) == pytest.approx(ceiling)


def test_confusion_chart_of_many_classes_has_no_names() -> None:
    names = [f"class{k}" for k in range(101)]
    svg = charts.confusion_chart(np.eye(101, dtype=np.int64), names, title="t", style="s")
    assert svg.count("<rect") == 102 and "class7</text>" not in svg
    assert "class7: 1 of 1 called class7" in svg


def test_numbers_as_people_write_them() -> None:
    assert (formats.points(-0.031), formats.points(0.0001), formats.points(0.2)) == (
        "−3.1", "0.0", "+20.0",
    )  # fmt: skip
    assert formats.plural(1, "class") == "1 class" and formats.plural(2, "class") == "2 classes"
    assert formats.number(13320) == "13\u202f320"
    assert formats.value_text((1, None, True, 1e-3)) == "1, none, yes, 0.001"
    assert formats.percent(None) == "" and formats.percent(0.8437) == "84.4"


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Any]:
    """A real headless Chromium."""
    from playwright.sync_api import sync_playwright

    quiet = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync")  # fmt: skip
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path, args=list(quiet))
        yield chromium
        chromium.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser: Any, folder: Path, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    messages: list[str] = []
    requests: list[str] = []
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    address = (folder / "report/index.html").as_uri()
    tab.goto(address)
    # closed parts count too
    tab.eval_on_selector_all("details", "all => all.forEach(part => part.open = true)")
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    widths = tab.eval_on_selector_all("img", "all => all.map(image => image.naturalWidth)")
    assert widths and min(widths) > 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    charts_drawn = tab.eval_on_selector_all(
        "svg.chart", "all => all.map(chart => chart.getBoundingClientRect().height)"
    )
    assert charts_drawn and min(charts_drawn) > 100
    # every link of the navigation leads somewhere
    broken = tab.eval_on_selector_all(
        "nav a", "all => all.filter(a => !document.querySelector(a.hash)).length"
    )
    assert broken == 0
    context.close()

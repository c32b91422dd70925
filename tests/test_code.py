"""The hashes of code that stages depend on: what counts as a change, and what is read."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flowsight import contract
from flowsight.pipeline import code

ROOT = Path(__file__).resolve().parents[1]
SOURCE = '''"""What it is."""

# why
X = 1  # a remark
TEXT = "# no remark"


class Thing:
    """A thing."""

    size: int = 2
    """In px."""

    def area(self):
        """Its area,

        in px.
        """
        return self.size**2
'''
BARE = """X = 1
TEXT = "# no remark"
class Thing:
    size: int = 2
    def area(self):
        return self.size**2"""


def fingerprint(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    code.fingerprint.cache_clear()
    return code.fingerprint(path)


def test_words_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "thing.py"
    whole = fingerprint(path, SOURCE)
    for old, new in (
        ("# why\n", "# because\n# of that\n"),
        ("  # a remark", ""),
        ("A thing", "Ein Ding, größer als 1 m²"),
        ("in px.", "in pixels."),
        ("\n\n\n", "\n\n"),
    ):
        assert old in SOURCE
        assert fingerprint(path, SOURCE.replace(old, new)) == whole, old
    assert code._bare(SOURCE) == BARE


@pytest.mark.parametrize(
    ("old", "new"),
    [("X = 1", "X = 2"), ("# no remark", "# none"), ("**2", "**3"), ("size", "side")],
)
def test_what_runs_counts(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "thing.py"
    assert fingerprint(path, SOURCE) != fingerprint(path, SOURCE.replace(old, new))


def test_other_files_count_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "page.html.j2"
    assert fingerprint(path, "{# a #}") != fingerprint(path, "{# b #}")


STARTS = {
    "train": "flowsight.training.job, flowsight.classifiers.scores",
    "evaluate": "flowsight.systems.two_stream.evaluate",
    "flow": "flowsight.datasets.clips.flow",
    "manifest": "flowsight.datasets.clips.manifest",
}


@pytest.mark.parametrize("stage", STARTS)
def test_closure_holds_what_python_loads(stage: str) -> None:
    """Independent of our reading: what an interpreter has loaded after importing the start."""
    script = (
        f"import sys, {STARTS[stage]}\n"
        "print(*(m.__file__ for n, m in list(sys.modules.items())"
        " if n.startswith('flowsight') and getattr(m, '__file__', None)), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {Path(line).relative_to(ROOT) for line in done.stdout.splitlines()}
    names = [n.strip() for n in STARTS[stage].split(",")]
    starts = [Path(str(importlib.import_module(name).__file__)) for name in names]
    found = {path.relative_to(ROOT) for path in code.closure(ROOT, starts)}
    source = ROOT / "src"
    left_out = {path for path in loaded - found if code._counts(source, ROOT / path)}
    # packages whose own file says nothing but what they are
    assert not {path for path in left_out if code._bare((ROOT / path).read_text())}


def test_modules_named_by_parameters_have_files_of_their_own(tmp_path: Path) -> None:
    code.write(ROOT, tmp_path / "code")
    found = {
        p.relative_to(tmp_path / "code").as_posix() for p in (tmp_path / "code").rglob("*.json")
    }
    assert {"train.json", "adapter/ucf101.json", "engine/cpu.json"} <= found
    for name in contract.names():
        verbs = contract.part(name, "instances").VERBS
        # a training that goes on is the same code
        own = {f"{name}/{verb}.json" for verb in verbs if verb != "refine"}
        assert own == {path for path in found if path.startswith(f"{name}/")}
        network = {path for path in files_of(tmp_path, f"{name}/train") if "/network" in path}
        assert network and network <= files_of(tmp_path, f"{name}/predict")
        others = {path for path in files_of(tmp_path, f"{name}/train") if "/systems/" in path}
        assert all(f"/systems/{name}/" in path for path in others), others
    engine = json.loads((tmp_path / "code/engine/cpu.json").read_text())
    assert "src/flowsight/flow/tvl1_cpu.py" in engine
    assert "src/flowsight/flow/tvl1_torch.py" not in engine


def files_of(root: Path, name: str) -> set[str]:
    return set(json.loads((root / f"code/{name}.json").read_text()))


def test_same_tree_same_bytes(tmp_path: Path) -> None:
    code.write(ROOT, tmp_path / "one")
    code.write(ROOT, tmp_path / "two")
    for path in (tmp_path / "one").rglob("*.json"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_the_report_is_made_again_when_a_template_changes() -> None:
    starts = code.entries(ROOT)
    own = {path: f"{path.parent.name}/report" for path in ROOT.glob("src/flowsight/systems/*/*.j2")}
    assert own and all(path in starts[stage] for path, stage in own.items())
    shared = {*(ROOT / "src/flowsight").rglob("*.j2")} - {*own}
    assert shared <= {*starts["page"]}
    assert ROOT / "src/flowsight/reporting/report.css" in starts["page"]

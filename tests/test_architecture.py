"""The rooms stay apart: who may import whom, and stages declare the code they run."""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from flowsight.pipeline import composing, dvc_yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "flowsight"
SYSTEMS = "systems=[two_stream,residual3d,background,saliency]"
STUDIES = ("none", "schedules", "layers", "learnt")  # together they have an instance of every stage


def composed(study: str) -> dict[str, dvc_yaml.Stage]:
    """The stages with the rows of a study."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("conf", "dvc.yaml"):
            (Path(folder) / name).symlink_to(ROOT / name)
        composing.compose([f"study={study}", SYSTEMS], root=folder)
        return dvc_yaml.load(Path(folder))


STAGES = {name: stage for study in STUDIES for name, stage in composed(study).items()}

HEAVY = {"torch", "torchvision", "lightning", "torchmetrics", "mlflow", "great_expectations"}
TORCH = {"torch", "torchvision"}

# room (file or folder below src/flowsight) -> heavy packages it may import, also inside functions
MAY_IMPORT = {
    "models": TORCH,
    "attention": TORCH,
    "tasks": TORCH | {"torchmetrics", "lightning"},
    "training.py": TORCH | {"lightning", "torchmetrics"},
    "alternation.py": TORCH,
    "inference.py": TORCH,
    "networks.py": TORCH,
    "scene_training.py": TORCH,
    "scene_inference.py": TORCH,
    "scene_networks.py": TORCH,
    "saliency_inference.py": {"torch"},
    "saliency_networks.py": {"torch"},
    "saliency_training.py": {"torch"},
    "resume.py": TORCH | {"lightning"},
    "flow/tvl1_torch.py": {"torch"},
    "flow/tvl1_steps.py": {"torch"},
    "flow/tvl1_images.py": {"torch"},
    "flow/tvl1_gpu.py": {"torch"},
    "flow/tvl1_launch.py": {"torch"},
    "checkpoint.py": TORCH,
    "seeding.py": TORCH,
    "datasets/clips.py": TORCH,
    "datasets/pair_batches.py": {"torch"},
    "datasets/sampling.py": TORCH,
    "datasets/transforms.py": TORCH,
    "tracking": {"mlflow"},
    "registry": {"mlflow"},
    "serving/bundle.py": TORCH,
    "serving/restoring.py": TORCH,
    "serving/systems": TORCH,
    "serving/pyfunc_model.py": {"mlflow"},
    "serving/registered.py": {"mlflow"},
    "validation.py": {"great_expectations"},
}
# deps need not list these: they cannot change an output's bytes
NO_DEP = {"cli", "config", "rows", "schema", "errors", "files", "progress", "tracking", "pipeline"}
NO_DEP |= {"data_params", "image_rows", "scene_rows"}

# what a stage's process must not load, for it would cost seconds
LIGHT_STAGES = ("sample", "manifest", "frames", "flow", "splits", "pairs", "evaluate", "report",
                "peers", "evaluate_scenes")  # fmt: skip


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Dotted names imported anywhere in a file, `from a import b` as `a.b`; not those for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for inner in block.body
    }
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and id(node) not in for_types:
            names += [f"{node.module}.{name.name}" for name in node.names]
    return tuple(names)


def allowed(path: Path) -> set[str]:
    name = path.relative_to(PACKAGE).as_posix()
    for room, packages in MAY_IMPORT.items():
        if name == room or name.startswith(room + "/"):
            return set(packages)
    return set()


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_heavy_imports_stay_in_their_rooms(path: Path) -> None:
    heavy = {name.split(".")[0] for name in imports_of(path)} & HEAVY
    assert heavy <= allowed(path), f"{path.name} may not import {sorted(heavy - allowed(path))}"


@pytest.mark.parametrize("room", ["models", "attention", "metrics"])
def test_inner_rooms_do_not_reach_out(room: str) -> None:
    outside = {
        "flowsight.training.loop",
        "flowsight.tracking",
        "flowsight.reporting",
        "flowsight.cli",
    }
    outside |= {"flowsight.cluster", "flowsight.commands"}
    for path in (PACKAGE / room).rglob("*.py"):
        found = {".".join(name.split(".")[:2]) for name in imports_of(path)}
        assert not found & outside, path


def test_workers_and_the_command_line_start_light() -> None:
    """A task is a process of its own, so what it loads is paid thousands of times."""
    names = [f"flowsight.cluster.{path.stem}" for path in (PACKAGE / "cluster").glob("[a-z]*.py")]
    lines = "\n".join(f"import {name}" for name in ["sys", "flowsight.cli", *names])
    heavy = sorted(HEAVY | {"dvc", "pandas", "numpy", "cv2", "fsspec"})
    script = f"{lines}\nprint(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "stages").glob("*.py")), ids=lambda p: p.stem)
def test_stages_are_thin(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    names = {name.split(".")[0] for name in imports_of(path)}
    assert names <= {"__future__", "argparse", "dataclasses", "pathlib", "flowsight"}, names


@pytest.mark.parametrize(
    "path", sorted((ROOT / "dags").rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_dags_only_schedule(path: Path) -> None:
    names = imports_of(path)
    outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    # `kubernetes` only where pods are described, which is loaded with that runner only
    pods = {"kubernetes"} if path.stem == "pods" else set()
    assert outside <= {"airflow", "ruamel", "flowsight", "flowsight_dags"} | pods, outside
    ours = {".".join(name.split(".")[:2]) for name in names if name.startswith("flowsight.")}
    assert ours <= {
        "flowsight.pipeline.dvc_yaml",
        "flowsight.pipeline.nodes",
        "flowsight.errors",
    }, ours


def test_every_stage_has_a_script_of_its_name() -> None:
    groups = {stage.group for stage in STAGES.values()}
    assert groups == {path.stem for path in (ROOT / "stages").glob("*.py")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def closure(*starts: Path) -> set[Path]:
    """Files of the package that scripts import, directly or not."""
    seen: set[Path] = set()
    todo = list(starts)
    while todo:
        for name in imports_of(todo.pop()):
            for path in module_files(name):
                if path not in seen:
                    seen.add(path)
                    todo.append(path)
    return seen


def module_files(dotted: str) -> Iterator[Path]:
    parts = dotted.split(".")
    if parts[0] != "flowsight":
        return
    for length in range(len(parts), 0, -1):
        base = SOURCE.joinpath(*parts[:length])
        if base.with_suffix(".py").is_file():
            yield base.with_suffix(".py")
            return
        if (base / "__init__.py").is_file():
            yield base / "__init__.py"
            return


@pytest.mark.parametrize("group", sorted({s.group for s in STAGES.values()}))
def test_stage_deps_cover_the_code_they_run(group: str) -> None:
    stage = next(s for s in STAGES.values() if s.group == group)
    # networks, tasks and adapters are named by parameters: what they import counts too
    named = [ROOT / dep for dep in stage.deps if dep.startswith("src/") and dep.endswith(".py")]
    needed = {
        path.relative_to(ROOT).as_posix()
        for path in closure(ROOT / "stages" / f"{group}.py", *named)
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in NO_DEP
        and path.name != "__init__.py"
    }
    covered = {n for n in needed if any(dvc_yaml.overlaps(dep, n) for dep in stage.deps)}
    assert needed == covered, f"dvc.yaml, {group}: add {sorted(needed - covered)} to deps"


@pytest.mark.parametrize("group", LIGHT_STAGES)
def test_light_stages_load_no_torch(group: str) -> None:
    script = ROOT / "stages" / f"{group}.py"
    for path in [script, *closure(script)]:
        names = {name.split(".")[0] for name in imports_of(path)}
        assert not names & TORCH, f"{group} loads torch through {path}"

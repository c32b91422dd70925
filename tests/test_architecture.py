"""The rooms stay apart: who may import whom, and how large a room may be."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from flowsight import contract
from flowsight.pipeline import code, composing, dvc_yaml
from flowsight.registry import subject

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/flowsight"
SYSTEMS = sorted(path.parent.name for path in PACKAGE.glob("systems/*/__init__.py"))
STUDIES = ("none", "schedules", "layers", "learnt")  # together they have an instance of every stage
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = ("params", "batches", "datasets", "samples", "nn", "metrics", "video", "flow")
PLATFORM = ("pipeline", "training", "evaluation", "reporting", "serving", "registry", "tracking",
            "cluster", "standalone", "commands", "cli")  # fmt: skip

TORCH = {"torch", "torchvision", "lightning", "torchmetrics"}
HEAVY = TORCH | {"mlflow", "great_expectations"}
# by the names of files and rooms: who may load torch when it is imported, ...
TORCH_FILES = {"network", "networks", "data", "batches", "train", "training", "predict", "task",
               "loss", "sequences", "spatial_attention", "alternation", "served", "scores",
               "explain"}  # fmt: skip
TORCH_ROOMS = ("nn", "batches", "training", "flow/tvl1_", "systems/two_stream/maps")
# ... and who only inside functions
TORCH_INSIDE = ("serve", "serving/", "judge", "views", "networks")
OTHERS = {
    "tracking": {"mlflow"},
    "registry": {"mlflow"},
    "serving/pyfunc_model.py": {"mlflow"},
    "serving/registered.py": {"mlflow"},
    "datasets/clips/validation.py": {"great_expectations"},
}

# what a stage's process must not load, for it would cost seconds
LIGHT_STAGES = ("code", "sample", "manifest", "frames", "flow", "splits", "items", "evaluate",
                "report", "page", "peers")  # fmt: skip
STAGES = sorted((ROOT / "stages").glob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def id_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().removeprefix("src/flowsight/")


@cache
def imported_at_the_top(path: Path) -> set[str]:
    """Packages that importing a file loads by itself."""
    found: set[str] = set()
    todo: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.If | ast.Try) and "TYPE_CHECKING" not in ast.dump(node):
            todo += node.body
    return found


def rooms_of(path: Path) -> Iterator[tuple[str, ...]]:
    """Modules of the package that a file imports anywhere, as parts below it."""
    for name in code.imports_of(path):
        if name.startswith("flowsight."):
            yield tuple(name.split(".")[1:])


# 1. a system knows no other
@pytest.mark.parametrize("system", SYSTEMS)
def test_systems_know_nothing_of_each_other(system: str) -> None:
    for path in (PACKAGE / "systems" / system).rglob("*.py"):
        others = {room[1] for room in rooms_of(path) if room[0] == "systems" and len(room) > 1}
        assert others <= {system}, f"{name_of(path)} imports of {sorted(others - {system})}"


# 2. nobody else knows a system by its name
@pytest.mark.parametrize(
    "path", [p for p in FILES if p.relative_to(PACKAGE).parts[0] != "systems"], ids=id_of
)
def test_only_systems_hold_the_names_of_systems(path: Path) -> None:
    own = {room[1:] for room in rooms_of(path) if room[0] == "systems" and len(room) > 1}
    assert not own, f"{name_of(path)} imports a system"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    assert not texts & set(SYSTEMS), f"{name_of(path)} names {sorted(texts & set(SYSTEMS))}"
    # these are no words of the language, so they mean the system wherever they stand
    words = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    assert not words & {name for name in SYSTEMS if not name.isalpha()}, name_of(path)


# 3. floors know neither platform nor systems; the contract only errors
@pytest.mark.parametrize("floor", FLOORS)
def test_floors_carry(floor: str) -> None:
    for path in (PACKAGE / floor).rglob("*.py"):
        above = {room[0] for room in rooms_of(path)} & {*PLATFORM, "systems", "classifiers"}
        assert not above, f"{name_of(path)}: {sorted(above)}"


# 4. heavy packages by file name
@pytest.mark.parametrize("path", FILES, ids=id_of)
def test_heavy_packages_stay_in_their_rooms(path: Path) -> None:
    name = name_of(path)
    may = next((own for room, own in OTHERS.items() if name.startswith(room)), set())
    whole = name.startswith(TORCH_ROOMS) or path.stem in TORCH_FILES or "/network/" in name
    inside = whole or path.stem in TORCH_INSIDE or name.startswith("serving/")
    heavy = {imported.split(".")[0] for imported in code.imports_of(path)} & HEAVY
    assert heavy <= may | (TORCH if inside else set()), f"{name} may not import {sorted(heavy)}"
    if not whole:
        assert not imported_at_the_top(path) & TORCH, f"{name}: inside functions only"


# 6. workers, DAGs and the command line start light
def test_workers_and_the_command_line_start_light() -> None:
    """A task is a process of its own, so what it loads is paid thousands of times."""
    names = [f"flowsight.cluster.{path.stem}" for path in (PACKAGE / "cluster").glob("[a-z]*.py")]
    lines = "\n".join(f"import {name}" for name in ["sys", "flowsight.cli", *names])
    heavy = sorted(HEAVY | {"dvc", "pandas", "numpy", "cv2", "fsspec"})
    script = f"{lines}\nprint(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("path", STAGES, ids=lambda p: p.stem)
def test_stages_are_thin(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    names = {name.split(".")[0] for name in code.imports_of(path)}
    assert names <= {"__future__", "argparse", "dataclasses", "pathlib", "flowsight"}, names


@pytest.mark.parametrize(
    "path", sorted((ROOT / "dags").rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_dags_only_schedule(path: Path) -> None:
    names = code.imports_of(path)
    outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    # `kubernetes` only where pods are described, which is loaded with that runner only
    pods = {"kubernetes"} if path.stem == "pods" else set()
    assert outside <= {"airflow", "ruamel", "flowsight", "flowsight_dags"} | pods, outside
    ours = {name for name in names if name.startswith("flowsight.")}
    light = ("flowsight.pipeline.dvc_yaml", "flowsight.pipeline.nodes", "flowsight.errors",
             "flowsight.contract")  # fmt: skip
    assert all(name.startswith(light) for name in ours), ours


def test_every_script_is_a_stages() -> None:
    scripts = {stage.cmd.split()[1] for stage in stages().values()}
    assert scripts == {f"stages/{path.name}" for path in (ROOT / "stages").glob("*.py")}
    own = {stage.group for stage in stages().values()} - {path.stem for path in STAGES}
    assert own == {"refine"}, "a training that goes on has the script of one that begins"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@cache
def stages() -> dict[str, dvc_yaml.Stage]:
    """Every stage that some parameters have."""
    found: dict[str, dvc_yaml.Stage] = {}
    for study in STUDIES:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("conf", "dvc.yaml"):
                (Path(folder) / name).symlink_to(ROOT / name)
            composing.compose([f"study={study}"], root=folder)
            found |= dvc_yaml.load(Path(folder))
    return found


@pytest.mark.parametrize(
    "entry", [name for name in code.entries(ROOT) if name.rpartition("/")[2] in LIGHT_STAGES]
)
def test_light_stages_load_no_torch(entry: str) -> None:
    for path in code.closure(ROOT, code.entries(ROOT)[entry]):
        if path.suffix == ".py":
            names = {name.split(".")[0] for name in code.imports_of(path)}
            assert not names & TORCH, f"{entry} loads torch through {path}"


# 5. a system is its folder: the contract's members, a README, a folder of numbers, one line
ROW_VERBS = ("train", "predict", "explain", "alternate", "spatial_attention")
SIGNATURES = {
    ("params", "Block"): None,
    ("instances", "instances"): ["block", "params"],
    ("evaluate", "evaluate"): ["params", "folders", "out"],
    ("report", "content"): ["params", "folders"],
    ("train", "train"): ["job"],
    ("predict", "predict"): ["job"],
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_has_what_the_contract_says(system: str) -> None:
    for (file, member), names in SIGNATURES.items():
        found = getattr(contract.part(system, file), member)
        parameters = inspect.signature(found).parameters.values()
        needed = [p.name for p in parameters if p.default is inspect.Parameter.empty]
        assert names is None or needed == names, f"{system}/{file}.py: {member}{needed}"
    for verb in contract.part(system, "instances").VERBS:
        if verb in ("refine", "report"):  # `train`, and `content`
            continue
        found = getattr(contract.part(system, verb), verb)
        needed = list(inspect.signature(found).parameters)
        wanted = ["job"] if verb in ROW_VERBS else ["params", "folders", "out"]
        assert needed[: len(wanted)] == wanted, f"{system}/{verb}.py: {verb}{needed}"
    for file, protocol in (("serve", contract.System), ("judge", subject.Subject)):
        members = {name for name in vars(protocol) if not name.startswith("_")}
        members |= set(protocol.__annotations__)
        own = contract.part(system, file)
        assert not [name for name in sorted(members) if not hasattr(own, name)], f"{system}/{file}"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_is_a_folder_of_code_one_of_numbers_and_a_line(system: str) -> None:
    folder, numbers = PACKAGE / "systems" / system, ROOT / "conf/systems" / system
    for name in ("README.md", "report.html.j2", "published.csv"):
        assert (folder / name).is_file(), f"{system} has no {name}"
    recipes = {"base", "paper", "small", "sample", "smoke"}
    assert {path.stem for path in numbers.glob("*.yaml")} == recipes
    lines = (ROOT / "conf/config.yaml").read_text().splitlines()
    assert lines.count(f"  - systems/{system}: ${{recipe}}") == 1
    elsewhere = [
        *(path for path in ROOT.glob("conf/*.yaml") if path.name != "config.yaml"),
        ROOT / "dvc.yaml",
        *STAGES,
    ]
    named = [path for path in elsewhere if re.search(rf"\b{system}\b", path.read_text())]
    assert not named, f"{system} is named in {named}"

"""Seconds and peak memory of every stage of a full run, and of a run where nothing changed.

    python benchmarks/pipeline.py [--recipe sample] [--json build/benchmarks/pipeline.json]

The pipeline runs in a scratch clone of the working tree with an empty DVC cache, so nothing comes
from an earlier run. Peak memory is that of the largest process of a stage (children included).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="sample")
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/pipeline.json")
    parser.add_argument("--keep", action="store_true", help="leave the scratch clone")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="flowsight-bench-"))
    try:
        result = measure(work, args.recipe)
    finally:
        if args.keep:
            print(f"kept {work}")
        else:
            shutil.rmtree(work)
    show(result)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(work: Path, recipe: str) -> dict[str, object]:
    """Run the pipeline stage by stage in a scratch clone."""
    clone(work)
    flowsight("compose", f"recipe={recipe}", cwd=work)
    sys.path.insert(0, str(ROOT / "src"))
    from flowsight.pipeline import dvc_yaml

    stages = {}
    start = time.perf_counter()
    for name in in_order(dvc_yaml.upstream(dvc_yaml.load(work))):
        stages[name] = timed(["dvc", "repro", "--quiet", "--single-item", name], work)
        print(f"{name}: {stages[name]['sec']:.1f} s", file=sys.stderr)
    stage_by_stage = time.perf_counter() - start
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.python_version()}",
        "recipe": recipe,
        "stages": stages,
        "stage_by_stage_sec": round(stage_by_stage, 1),
        "no_change": timed(["dvc", "repro", "--quiet"], work),
    }


def clone(work: Path) -> None:
    """The working tree's files that git knows or would take, in a repository of their own."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file() and name != "dvc.lock":
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, work / name)
    subprocess.run(["git", "init", "-q"], cwd=work, check=True)
    subprocess.run(["git", "add", "-A"], cwd=work, check=True)
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run(["git", *identity, "commit", "-qm", "bench"], cwd=work, check=True)


def in_order(upstream: dict[str, set[str]]) -> list[str]:
    """Stages such that each comes after what it reads."""
    done: list[str] = []
    while len(done) < len(upstream):
        done += [n for n, before in upstream.items() if n not in done and before <= set(done)]
    return done


def flowsight(*arguments: str, cwd: Path) -> None:
    subprocess.run([Path(sys.executable).parent / "flowsight", *arguments], cwd=cwd, check=True)


def timed(command: list[str], cwd: Path) -> dict[str, float]:
    """Wall seconds and the peak of resident memory over the process tree, sampled at 20 Hz."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_memory(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode} in {cwd}")
    return {"sec": round(time.perf_counter() - start, 2), "peak_mb": round(peak / 2**20)}


def tree_memory(pid: int) -> int:
    try:
        root = psutil.Process(pid)
        return sum(p.memory_info().rss for p in [root, *root.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0


def show(result: dict[str, object]) -> None:
    stages: dict[str, dict[str, float]] = result["stages"]  # type: ignore[assignment]
    total = sum(stage["sec"] for stage in stages.values())
    print(f"{result['machine']} (Python), recipe {result['recipe']}")
    for name, stage in stages.items():
        share = stage["sec"] / total
        print(f"{name:<40} {stage['sec']:7.1f} s {share:6.1%} {stage['peak_mb']:7.0f} MiB")
    print(f"{'sum':<40} {total:7.1f} s, peak {max(s['peak_mb'] for s in stages.values()):.0f} MiB")
    print(f"{'nothing changed':<40} {result['no_change']['sec']:7.1f} s")  # type: ignore[index]


if __name__ == "__main__":
    main()

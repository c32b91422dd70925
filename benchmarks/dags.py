"""Seconds that Airflow needs to parse each DAG file, and to read a thousand stages.

    python benchmarks/dags.py [--json build/benchmarks/dags.json]

Each file is parsed in a fresh process that has imported Airflow, as its DAG processor and every
task do. CPU seconds, which neighbours on the machine change little, and wall seconds; the median
of five. The last line is a synthetic dvc.yaml of 1,000 stages.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5
PARSE = """
import sys, time
import airflow.sdk, airflow.dag_processing.dagbag
sys.path.insert(0, "dags")
cpu, wall = time.process_time(), time.perf_counter()
__import__(sys.argv[1])
print(time.process_time() - cpu, time.perf_counter() - wall)
"""
READ = """
import sys, time
cpu, wall = time.process_time(), time.perf_counter()
from flowsight import nodes
found = nodes.load(sys.argv[1])
print(time.process_time() - cpu, time.perf_counter() - wall)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=ROOT / "build/benchmarks/dags.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(AIRFLOW_HOME=folder, AIRFLOW__CORE__LOAD_EXAMPLES="False")
        result = {path.stem: seconds(PARSE, path.stem) for path in (ROOT / "dags").glob("*.py")}
        thousand = Path(folder) / "thousand"
        write_thousand(thousand)
        result["1,000 stages"] = seconds(READ, str(thousand))
    for name, value in result.items():
        print(f"{name:14} {value['cpu_sec']:.3f} s CPU  {value['wall_sec']:.3f} s")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")


def seconds(code: str, argument: str) -> dict[str, float]:
    """Median times of a measurement in fresh processes."""
    times = []
    for _ in range(REPEATS):
        command = [sys.executable, "-c", code, argument]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        times.append([float(part) for part in done.stdout.splitlines()[-1].split()])
    cpu, wall = (statistics.median(column) for column in zip(*times, strict=True))
    return {"cpu_sec": cpu, "wall_sec": wall}


def write_thousand(root: Path) -> None:
    """A chain of 40 groups with 25 instances each."""
    root.mkdir()
    lines = ["stages:"]
    for i in range(40):
        dep = f"out/{i - 1}/${{item}}" if i else "raw"
        lines += [f"  group{i}:", "    foreach: ${shards}", "    do:", "      cmd: run"]
        lines += [f"      deps: ['{dep}', src/code.py]", f"      outs: ['out/{i}/${{item}}']"]
    (root / "dvc.yaml").write_text("\n".join(lines) + "\n")
    (root / "params.yaml").write_text(f"shards: {list(range(25))}\n")


if __name__ == "__main__":
    main()

"""Commands that continue in a process kept for them end as the real ones do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flowsight.pipeline import warm

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux 5.3 or later")


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    """A warm Python that has imported little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "PYTHON", ("json", "decimal"))
        before = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with warm.commands(["python"], before) as env:
            wait_until(Path(env["FLOWSIGHT_WARM"], "python.socket").exists)
            yield env


def wait_until(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def script(folder: Path, text: str) -> str:
    path = folder / "script.py"
    path.write_text(text)
    return str(path)


def run(
    env: dict[str, str], *arguments: str, cwd: Path | None = None, given: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["env", "python", *arguments],
        env=env,
        cwd=cwd,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def test_is_the_command_in_the_process_that_has_imported(
    env: dict[str, str], tmp_path: Path
) -> None:
    seen = script(
        tmp_path,
        "import sys, os; print('decimal' in sys.modules, sys.argv[1:], sys.path[0], os.getcwd(),"
        " os.environ['MARK'], __name__, sys.stdin.read())",
    )
    done = run({**env, "MARK": "here"}, seen, "a b", "*", cwd=tmp_path, given="read")
    expected = f"True ['a b', '*'] {tmp_path} {tmp_path} here __main__ read"
    assert done.stdout.strip() == expected, done.stderr
    left_alone = run(env, "-c", "import sys; print('decimal' in sys.modules)")
    assert left_alone.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("raise SystemExit(75)", 75, ""),
        ("raise SystemExit('no such clip')", 1, "no such clip"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM, ""),
        ("import atexit; atexit.register(print, 'tidy')", 0, "tidy"),
        (
            "import threading, time\n"
            "threading.Thread(target=lambda: (time.sleep(.2), print('late'))).start()",
            0,
            "late",
        ),
    ],
)
def test_ends_as_it_would_have(
    env: dict[str, str], tmp_path: Path, text: str, code: int, said: str
) -> None:
    done = run(env, script(tmp_path, text))
    assert done.returncode == code
    assert said in done.stdout + done.stderr


def test_modules_run_as_with_m(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import sys; print(sys.argv[1:], __name__)")
    done = run(env, "-m", "own", "x", cwd=tmp_path)
    assert done.stdout.strip() == "['x'] __main__", done.stderr


def test_chance_differs_between_commands(env: dict[str, str], tmp_path: Path) -> None:
    draw = script(tmp_path, "import random; print(random.random())")
    assert run(env, draw).stdout != run(env, draw).stdout


def test_nobody_computes_for_the_dead(env: dict[str, str], tmp_path: Path) -> None:
    sleeper = script(
        tmp_path, "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    )
    client = subprocess.Popen([f"{env['FLOWSIGHT_WARM']}/python", sleeper], env=env, cwd=tmp_path)
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text())
    client.kill()
    client.wait()
    wait_until(lambda: not psutil.pid_exists(int(pid.read_text())))


def test_commands_run_side_by_side_and_leave_nothing(env: dict[str, str], tmp_path: Path) -> None:
    meet = script(
        tmp_path,  # each waits for the other's file
        "import sys, time; from pathlib import Path\n"
        "mine, other = map(Path, sys.argv[1:]); mine.touch()\n"
        "end = time.monotonic() + 20\n"
        "while not other.exists(): assert time.monotonic() < end; time.sleep(.01)",
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "PYTHON", ("json",))
        with warm.commands(["python"], env) as inner:
            folder = Path(inner["FLOWSIGHT_WARM"])
            wait_until((folder / "python.socket").exists)
            orders = ((a, b), (b, a))
            both = [subprocess.Popen(["env", "python", meet, *o], env=inner) for o in orders]
            assert [process.wait(30) for process in both] == [0, 0]
    assert not folder.exists()


def test_without_a_process_the_command_runs_as_ever(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warm, "PYTHON", ("no_such_module",))
        with warm.commands(["python"], dict(os.environ)) as env:
            done = run(env, script(tmp_path, "print('cold'); raise SystemExit(3)"))
    assert (done.returncode, done.stdout) == (3, "cold\n")


def test_dvc_is_dvc(tmp_path: Path) -> None:
    with warm.commands(["dvc"], dict(os.environ)) as env:
        wait_until(Path(env["FLOWSIGHT_WARM"], "dvc.socket").exists)
        command = ["env", "dvc", "root"]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 253  # what DVC says outside a repository
    assert b"not inside of a DVC repository" in done.stderr

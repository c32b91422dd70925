"""`flowsight at REV COMMAND`: a command of any kind, in a work tree at a revision."""

from __future__ import annotations

from typing import Any

import pytest

Toy = Any  # tests/cluster/conftest.py


def test_the_command_stands_in_the_revision(toy: Toy) -> None:
    """`compose` writes `params.yaml` where it stands; nobody sees that tree afterwards."""
    worker = toy.worker("a")
    code, out, err = worker.call("at", "main", "compose", "recipe=smoke", "seed=9")
    assert code == 0, err
    assert "recipe smoke" in out and "seed 9" in out
    assert not list((toy.root / "a/work/trees").rglob("dvc.yaml"))
    assert not (worker.home / "params.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("main", "compose", "recipe=nothing"), "groups: dataset ="),
        (("nowhere", "compose"), "found no 'nowhere'"),
        (("main",), "expected a command after REV"),
    ],
)
def test_its_failure_is_ours(toy: Toy, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = toy.worker("a").call("at", *arguments)
    assert code == 2
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err

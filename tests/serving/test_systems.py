"""What every system's module has: whoever adds one sees here what is missing."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from flowsight import contract
from flowsight.contract import System
from flowsight.errors import InputError

FUNCTIONS = [name for name in vars(System) if name.islower() and not name.startswith("_")]
KINDS = {"string", "double", "long", "string[]", "double[]", "any"}


def test_names_are_those_of_the_modules() -> None:
    assert contract.names() == ["background", "residual3d", "saliency", "two_stream"]
    with pytest.raises(InputError, match="got 'two_steam'; did you mean 'two_stream'"):
        contract.find("two_steam")
    with pytest.raises(InputError, match=r"got '\.\./two_stream'"):
        contract.find("../two_stream")


@pytest.mark.parametrize("name", contract.names())
def test_a_module_has_all_that_is_asked_of_it(name: str) -> None:
    module = contract.find(name)
    assert len(FUNCTIONS) == 10, FUNCTIONS
    for function in FUNCTIONS:
        asked = list(inspect.signature(getattr(System, function)).parameters)[1:]
        assert list(inspect.signature(getattr(module, function)).parameters) == asked, function
    assert set(module.OUTPUTS.values()) <= KINDS
    assert module.COLUMNS and all(isinstance(column, str) for column in module.COLUMNS)


def test_to_write_a_bundle_or_to_refuse_one_takes_no_torch() -> None:
    program = (
        "import sys; from flowsight import contract\n"
        "from flowsight.serving import predict_command\n"
        "print([contract.find(name).__name__ for name in contract.names()], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip().endswith("] False"), done.stdout + done.stderr

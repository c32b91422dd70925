"""The same bytes on every processor: no bit hangs on how a library computes."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowsight.samples import actions, background, clip, exact, figure, images

FOLDER = Path(exact.__file__).parent
# what libm, vector libraries or BLAS may compute in other ways on other processors
VARYING = {"sin", "cos", "tan", "tanh", "arccos", "arcsin", "arctan", "arctan2", "hypot", "exp",
           "log", "power", "linalg", "dot", "matmul", "einsum", "inner", "tensordot"}  # fmt: skip


def varying(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult | ast.Pow):
            found.append(ast.unparse(node))
        if isinstance(node, ast.Attribute) and node.attr in VARYING:
            found += [name for name in [ast.unparse(node)] if name.split(".")[0] in ("np", "math")]
    return found


def test_the_check_finds_what_varies() -> None:
    assert varying("a @ b") == ["a @ b"]
    assert sorted(varying("np.linalg.inv(x) + math.sin(y)")) == ["math.sin", "np.linalg"]
    assert varying("exact.sin(x) * np.sqrt(y)") == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_only_one_module_computes_what_varies(path: Path) -> None:
    if path.stem != "exact":
        assert varying(path.read_text()) == []


def test_products_are_those_of_matrices() -> None:
    rng = np.random.default_rng(0)
    one, other = (np.vstack([rng.normal(size=(2, 3)), [0, 0, 1]]) for _ in range(2))
    points = rng.normal(size=(4, 5, 2))
    np.testing.assert_allclose(exact.compose(one, other), one @ other, atol=1e-14)
    np.testing.assert_allclose(exact.invert(one), np.linalg.inv(one), atol=1e-13)
    homogeneous = np.concatenate([points, np.ones((4, 5, 1))], axis=-1)
    np.testing.assert_allclose(
        exact.transform(one, points), (homogeneous @ one.T)[..., :2], atol=1e-14
    )
    for angle in (-2.0, 0.3, 1.4):
        assert exact.arctan2(exact.sin(angle), exact.cos(angle)) == pytest.approx(angle, abs=1e-9)
    assert exact.arccos(1.0000001) == 0
    assert exact.tanh(0.5) == pytest.approx(np.tanh(0.5), abs=1e-10)


class Nudged:
    """NumPy on another processor: transcendental functions differ in the last bit or two."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if name not in VARYING:
            return function
        rng = np.random.default_rng(1)

        def other(*values: Any) -> Any:
            result = function(*values)
            return result + np.spacing(result) * rng.integers(-2, 3, np.shape(result))

        return other


def everything() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    take = clip.Take(
        look=figure.draw_look(1, rng, 90.0),
        background=replace(background.draw_background(1, (120, 160), rng, 24), motion="pan"),
        facing=1,
        centre=(80.0, 110.0),
        phase=0.7,
        drift=0.8,
        shape=(120, 160),
    )
    made: list[np.ndarray] = []
    for action in actions.CLASSES:
        rendered = clip.render(action, take, 4, 12, np.random.default_rng(0))
        made += [np.stack(rendered.frames), np.stack(rendered.masks), np.stack(rendered.flow)]
    for number in range(7):
        made += images.render_pair(np.random.default_rng(number), (72, 96), number)
    return made


def test_last_bits_of_functions_change_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    here = everything()
    assert len(here) == 3 * len(actions.CLASSES) + 14
    monkeypatch.setattr(exact, "np", Nudged())
    assert exact.sin(0.7) == np.round(np.sin(0.7), 10)
    assert [a.tobytes() for a in everything()] == [a.tobytes() for a in here]

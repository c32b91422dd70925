"""The shared library of the C engine of TV-L1: finding, checking and loading it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.machinery
import os
from pathlib import Path
from typing import Any

from flowsight.errors import InputError

SOURCE = Path(__file__).with_name("_tvl1.c")
LEVELS = ("baseline", "avx2", "avx512")


class CNumbers(ctypes.Structure):
    """`tvl1_numbers` of the C source."""

    _fields_ = (
        *((name, ctypes.c_double) for name in ("tau", "lambda_", "theta", "epsilon", "scale_step")),
        *((name, ctypes.c_int32) for name in ("num_scales", "num_warps", "inner_iterations")),
        *(
            (name, ctypes.c_int32)
            for name in ("outer_iterations", "median_filtering", "cuda", "exact")
        ),
    )


def available() -> bool:
    """Whether the engine is built, loads, and comes from this source."""
    return _library() is not None and source_matches()


def source_matches() -> bool:
    """Whether the library was built from the C source beside it (its sha256 is compiled in)."""
    library = _library()
    return library is not None and _compiled_digest(library) == _source_digest()


def library_info() -> dict[str, Any]:
    """What there is: path, source_sha256, source_matches, simd (levels this machine runs)."""
    library = _library()
    if library is None:
        return {"path": None, "source_sha256": None, "source_matches": False, "simd": []}
    return {
        "path": str(_library_path()),
        "source_sha256": _compiled_digest(library),
        "source_matches": source_matches(),
        "simd": list(LEVELS[: library.flowsight_tvl1_level()]),
    }


def level_number(simd: str | None, library: ctypes.CDLL) -> int:
    """The engine's number of an instruction set, 0 for the best; InputError where it cannot run."""
    name = simd or os.environ.get("FLOWSIGHT_SIMD")
    if not name:
        return 0
    runs = LEVELS[: library.flowsight_tvl1_level()]
    if name not in runs:
        raise InputError(
            f"expected an instruction set that this machine runs, of {', '.join(runs)},"
            f" got {name!r}, in simd or FLOWSIGHT_SIMD"
        )
    return LEVELS.index(name) + 1


def checked_library() -> ctypes.CDLL:
    """The engine, or InputError where there is none or one of other source."""
    library = _library()
    again = "install the package again where there is a C compiler (pip install -e .)"
    if library is None:
        raise InputError(f"expected the built CPU engine of TV-L1, got none; {again}")
    if not source_matches():
        raise InputError(f"expected a CPU engine built from {SOURCE.name} as it is; {again}")
    return library


def _library_path() -> Path | None:
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = SOURCE.with_suffix(suffix)
        if path.is_file():
            return path
    return None


@functools.cache
def _library() -> ctypes.CDLL | None:
    path = _library_path()
    if path is None:
        return None
    try:
        library = ctypes.CDLL(str(path))
        return _declare(library)
    except (OSError, AttributeError):  # of another platform, or another version of the engine
        return None


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint64
    library.flowsight_tvl1_level.restype = integer
    library.flowsight_tvl1_source.restype = ctypes.c_char_p
    library.flowsight_tvl1_workspace.restype = size
    library.flowsight_tvl1_workspace.argtypes = [integer, integer, pointer]
    library.flowsight_tvl1_solve.restype = integer
    library.flowsight_tvl1_solve.argtypes = [
        *(pointer, pointer, integer, integer, integer, pointer, pointer, pointer),
        *(ctypes.c_double, pointer, size, integer, pointer),
    ]
    return library


def _compiled_digest(library: ctypes.CDLL) -> str:
    return str(library.flowsight_tvl1_source().decode())


@functools.cache
def _source_digest() -> str:
    if not SOURCE.is_file():
        return "no source"
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()

"""Loops that are compiled: numba, kept beside the source from the first run on, and without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function as machine code, for the types of its first arguments."""
    return cast(F, njit(cache=True, nogil=True)(function))

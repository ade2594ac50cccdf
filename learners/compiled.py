"""Loops that are compiled: numba, when they are first called; processes that never call one do without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function as machine code for the types of its arguments, without the interpreter's lock.

    Kept beside the source, so that it is compiled once. It may call no other compiled one.
    """

    @cache
    def machine_code() -> Callable[..., Any]:
        from numba import njit

        try:
            return cast(Callable[..., Any], njit(cache=True, nogil=True)(function))
        except RuntimeError:  # neither the source's folder nor the user's cache can be written
            return cast(Callable[..., Any], njit(nogil=True)(function))

    @wraps(function)
    def call(*args: Any) -> Any:
        return machine_code()(*args)

    return cast(F, call)

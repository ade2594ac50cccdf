"""Loops that are compiled: numba, when they are first called; processes that never call one do without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from inspect import getsource
from types import FunctionType
from typing import Any, TypeVar, cast
from zlib import crc32

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function as machine code for the types of its arguments, without the interpreter's lock.

    It may call others of its kind. Kept beside the source, so that it is compiled once, by a name that is another one when anything that
    goes into it is: numba by itself looks at the source of the outermost function only.
    """

    @cache
    def machine_code() -> tuple[Callable[..., Any], int]:
        from numba import njit

        code, used = function.__code__, dict(function.__globals__)
        parts = [getsource(function).encode()]
        for name in code.co_names:
            inner = getattr(used.get(name), "machine_code", None)
            if inner is not None:
                used[name], digest = inner()
                parts.append(digest.to_bytes(4, "little"))
            elif isinstance(used.get(name), int | float | str | tuple):
                parts.append(repr(used[name]).encode())
        digest = crc32(b"".join(parts))
        named = FunctionType(code, used, function.__name__, function.__defaults__)
        named.__qualname__ = f"{function.__name__}_{digest:08x}"
        try:
            return njit(cache=True, nogil=True)(named), digest
        except RuntimeError:  # neither the source's folder nor the user's cache can be written
            return njit(nogil=True)(named), digest

    @wraps(function)
    def call(*args: Any) -> Any:
        return machine_code()[0](*args)

    call.machine_code = machine_code  # type: ignore[attr-defined]  # functions have attributes, their types do not
    return cast(F, call)

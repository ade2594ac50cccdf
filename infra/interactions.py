"""Reading a file of interactions: by time, ties by a seeded hash, whatever the separator."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TextIO


class Row(NamedTuple):
    user: str
    item: str
    value: float | None
    at: float  # Unix s


class BadFile(ValueError):
    """The file is not what is read here; the text says where and what is wanted."""


FIRST, LAST = (at.replace(tzinfo=UTC).timestamp() for at in (datetime.min, datetime.max))  # Unix s; milliseconds of our time are later


def _name(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _value(text: str) -> float | None:
    if text and not isfinite(float(text)):
        raise ValueError
    return float(text) if text else None


def _time(text: str) -> float:
    """Unix s. Raises ValueError."""
    try:
        at = float(text)
    except ValueError:
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is None:
            raise
        at = parsed.timestamp()
    if not FIRST <= at <= LAST:
        raise ValueError
    return at


READS: dict[str, tuple[Callable[[str], Any], str]] = {
    "user": (_name, "no name"),
    "item": (_name, "no name"),
    "value": (_value, "no number"),
    "timestamp": (_time, "no time: Unix seconds, or ISO 8601 with an offset"),
}


def rows(file: Path, seed: int = 0) -> list[Row]:
    """The interactions of `file`, by time; equal times in the order of a seeded hash of time and row number.

    Columns user, item, value, timestamp (Unix s, or ISO 8601 with offset) by header, comma- or tab-separated, plain or
    .gz; headers like `user_id:token` (RecBole) are understood. Ties in file order would leak what comes next.
    """
    return [row for row, _ in labelled(file, "", seed)]


def labelled(file: Path, column: str, seed: int = 0) -> list[tuple[Row, str]]:
    """The `rows` of `file`, each with what that column says of it, "" where there is none."""
    try:
        opened = gzip.open if file.suffix == ".gz" else open
        with opened(file, "rt", newline="", encoding="utf-8-sig") as text:
            found = _parsed(file, text, column)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise BadFile(f"{file} cannot be read: {error}") from None
    if not found:
        raise BadFile(f"{file} has no interactions")

    def tie(entry: tuple[int, tuple[Row, str]]) -> tuple[float, bytes]:
        number, (row, _) = entry
        return row.at, blake2b(f"{seed}/{row.at}/{number}".encode(), digest_size=8).digest()

    return [row for _, row in sorted(enumerate(found), key=tie)]


def _parsed(file: Path, text: TextIO, label: str) -> list[tuple[Row, str]]:
    """The rows of `file` as they stand there, and their labels."""
    first = text.readline()
    reader = csv.reader(text, delimiter="\t" if "\t" in first else ",")
    names = [name.split(":")[0].removesuffix("_id") for name in first.strip().split("\t" if "\t" in first else ",")]
    names = ["value" if name == "rating" else name for name in names]
    missing = {"user", "item", "timestamp"} - set(names)
    if missing:
        raise BadFile(f"{file}: no column {', '.join(sorted(missing))}; wanted are user,item,value,timestamp, found {first.strip()!r}")
    place = {name: names.index(name) for name in names}
    found = []
    for number, cells in enumerate(reader, 2):
        if len(cells) < len(names):
            raise BadFile(f"{file}, line {number}: {len(cells)} columns instead of {len(names)}")
        row = list[Any]()
        for column, (read, wanted) in READS.items():
            cell = cells[place[column]] if column in place else ""
            try:
                row.append(read(cell))
            except ValueError:
                raise BadFile(f"{file}, line {number}: {column} {cell!r} is {wanted}") from None
        found.append((Row(*row), cells[place[label]] if label in place else ""))
    return found

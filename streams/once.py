"""One effect per record: a fence per input partition drops what ingest wrote twice, a window of event ids what a producer sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from streams.timeline import Moved, Record, Source

WINDOW = 100_000  # event ids a partition remembers, 8 bytes each
CHUNK = 128  # of them in one record of the state topic
REFOLDED, REPEATED, FRESH = "refolded", "duplicates", "folded"


class Once:
    """What one timeline partition has had. Records must come in the timeline's order."""

    def __init__(self) -> None:
        self.fences: dict[str, int] = {}  # "input/partition" -> highest offset that counted
        self.ids = 0  # that ever entered the window
        self.changed: set[int] = set()  # chunks, since whoever writes them last cleared it
        self._chunks: dict[int, list[bytes]] = {}  # number -> 8-byte hashes
        self._known: set[bytes] = set()
        self._names: dict[tuple[int, int], str] = {}  # of the fences, made once

    def verdict(self, record: Record) -> str:
        """Does the record count (`FRESH`), or why not?"""
        source, fences = record.source, self.fences
        name = self._names.get((source.topic, source.partition)) or self._name(source)
        if source.offset <= fences.get(name, -1):
            return REFOLDED
        fences[name] = source.offset
        if isinstance(record, Moved):
            self.fences = dict(record.fences)
            return FRESH
        id: str | None = getattr(record, "id", None)
        return REPEATED if id is not None and self._repeated(source.topic, id) else FRESH

    def _name(self, source: Source) -> str:
        return self._names.setdefault((source.topic, source.partition), f"{source.topic}/{source.partition}")

    def _repeated(self, topic: int, id: str) -> bool:
        mark = blake2b(f"{topic}/{id}".encode(), digest_size=8).digest()
        known, ids = self._known, self.ids
        if mark in known:
            return True
        chunk = ids // CHUNK % (WINDOW // CHUNK + 1)
        if ids % CHUNK == 0:  # the oldest chunk makes room
            known.difference_update(self._chunks.get(chunk, ()))
            self._chunks[chunk] = []
        self._chunks[chunk].append(mark)
        known.add(mark)
        self.ids = ids + 1
        self.changed.add(chunk)
        return False

    def changes(self) -> Iterator[tuple[int, bytes]]:
        """(number, record) of each chunk that changed since this was last asked for."""
        for chunk in sorted(self.changed):
            yield chunk, b"".join(self._chunks[chunk])
        self.changed.clear()

    def load(self, chunk: int, value: bytes | None) -> None:
        """Take a chunk's record over."""
        self._known.difference_update(self._chunks.get(chunk, ()))
        self._chunks[chunk] = [value[i : i + 8] for i in range(0, len(value), 8)] if value else []
        self._known.update(self._chunks[chunk])

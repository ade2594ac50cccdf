"""A release's life: which version serves whom. One state machine, a fold of the whole topic `releases.v1`. Pure.

    requested ─▶ candidate ─▶ shadow ─▶ canary ─▶ live ─▶ (superseded by the next)
        └─▶ refused   └──────────┴─────────┴────────┴─▶ rolled_back

A step that the table does not allow is ignored, with its reason; operators' records go through the same door. So is a
record that was read before: an old `live` that somebody sends again does not move what serves. And so is one of a trainer
whose epoch is over: each trainer that begins has one of its own, higher than those before.

`frozen` makes a version live (0: the one that is) and keeps it so: until `thawed` no other may become canary or live.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from zlib import crc32

import pydantic.dataclasses

# stage -> the stages a version may come from; None: a version nobody has heard of
ALLOWED: dict[str, frozenset[str | None]] = {
    "requested": frozenset({None}),
    "candidate": frozenset({None, "requested"}),
    "refused": frozenset({None, "requested", "candidate"}),
    "shadow": frozenset({"candidate"}),
    "canary": frozenset({"candidate", "shadow"}),
    "live": frozenset({"candidate", "shadow", "canary", "superseded", "rolled_back"}),
    "rolled_back": frozenset({"candidate", "shadow", "canary", "live"}),
    "frozen": frozenset({"candidate", "shadow", "canary", "live", "superseded", "rolled_back"}),
}
SWITCHES = frozenset({"frozen", "thawed"})  # these may be about no version at all


JUMP = 1_000  # how far beyond the newest version a new one may be


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class Rollout:
    """`canary_share` of users who get a canary; it goes live after `judged` answers without evidence of harm, at the
    latest after `deadline_s`. `keep`: versions that stay loaded."""

    canary_share: float = 0.05
    judged: int = 400
    deadline_s: float = 60.0
    keep: int = 3


@dataclass
class Releases:
    """What is live, what is on trial, and every version's stage."""

    live: int = 0  # 0: no deep model yet
    canary: int = 0
    share: float = 0.0
    stages: dict[int, str] = field(default_factory=dict)
    hashes: dict[int, str] = field(default_factory=dict)  # version -> sha256 of its manifest
    lives: list[int] = field(default_factory=list)  # every version that was live, in order
    requests: dict[str, str] = field(default_factory=dict)  # request id -> last stage it led to
    read: set[str] = field(default_factory=set)  # ids of all records that counted
    epoch: int = 0  # of the last trainer that was heard of
    frozen: bool = False

    def apply(
        self, version: int, stage: str, share: float | None = None, sha256: str | None = None, request: str | None = None, id: str = "",
        epoch: int | None = None,
    ) -> str | None:  # fmt: skip
        """Take the record `id` in; returns why it was ignored, None where it counted. `epoch` of the trainer, None of an operator."""
        if id in self.read:
            return f"the record {id} has been read before"
        if epoch is not None and epoch < self.epoch:
            return f"the epoch {epoch} is over, a trainer has begun epoch {self.epoch}"
        if version == 0 and stage in SWITCHES:
            return self._switch(stage, id)
        before = self.stages.get(version)
        if before not in ALLOWED.get(stage, ()):
            return f"version {version} is {before or 'unknown'}, it cannot become {stage}"
        if stage == "candidate" and version <= max(self.lives, default=0):
            return f"version {version} is not newer than {max(self.lives)}, which was live"
        if before is None and version > self.newest + JUMP:
            return f"version {version} is more than {JUMP} beyond {self.newest}, the newest"
        if self.frozen and stage in ("shadow", "canary", "live"):
            return f"version {version} cannot become {stage}: releases are frozen until an operator thaws them"
        if stage == "frozen":
            self._switch(stage, id)
            stage = "live"
        if version:
            self.stages[version] = stage
        if id:
            self.read.add(id)
        self.epoch = max(self.epoch, epoch or 0)
        if sha256 is not None:
            self.hashes[version] = sha256
        if request is not None:
            self.requests[request] = stage
        if stage == "canary":
            if self.canary:
                self.stages[self.canary] = "superseded"
            self.canary, self.share = version, share or 0.0
        elif stage == "live":
            if self.live and self.live != version:
                self.stages[self.live] = "superseded"
            self.live = version
            self.lives.append(version)
        elif stage == "rolled_back" and version == self.live:
            self.lives = [v for v in self.lives if v != version]
            self.live = self.lives[-1] if self.lives else 0
            if self.live:
                self.stages[self.live] = "live"
        if version == self.canary and stage in ("live", "rolled_back", "refused"):
            self.canary, self.share = 0, 0.0
        return None

    def _switch(self, stage: str, id: str) -> str | None:
        """Freeze, which ends a canary, or thaw."""
        if stage == "thawed" and not self.frozen:
            return "releases are not frozen"
        self.frozen = stage == "frozen"
        if self.frozen and self.canary:
            self.stages[self.canary] = "superseded"
            self.canary, self.share = 0, 0.0
        if id:
            self.read.add(id)
        return None

    def version_for(self, user: str) -> tuple[int, Literal["live", "canary"]]:
        """(version, arm) that serves `user`: a stable share of the users, by hash, is the canary's."""
        if self.canary and crc32(f"{self.canary}/{user}".encode()) % 10_000 < self.share * 10_000:
            return self.canary, "canary"
        return self.live, "live"

    @property
    def newest(self) -> int:
        """Highest version ever named."""
        return max(self.stages, default=0)

    def loaded(self, keep: int) -> list[int]:
        """Versions that should stay loaded: live, canary, and those live before, `keep` in all."""
        wanted = [v for v in (self.live, self.canary) if v]
        for version in reversed(self.lives):
            if version not in wanted and len(wanted) < keep:
                wanted.append(version)
        return sorted(wanted)

"""The public events: what users produce to the bus and read from it, validated strictly at the edge.

One JSON value each. Unknown names are refused, so that a misspelling shows; own data goes into `extra`. Times are
ISO 8601 with an offset. A change inside `.v1` only adds optional names.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

if TYPE_CHECKING:
    from serving.release import Releases

# No control characters, no white space at the ends: such ids come back in answers and end up in keys and logs.
_ID = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
Id = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=_ID)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]
Kind = Literal["view", "click", "like", "rating", "cart", "purchase", "play"]
Reaction = Literal["view", "click", "like", "rating", "cart", "purchase", "play", "dislike", "dismiss"]
Extra = dict[str, Any]
Whole = Annotated[int, Field(ge=0, le=1 << 53)]  # exact in every JSON reader
Version = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]  # Triton names its folder
Share = Annotated[float, Field(ge=0, le=1)]

ANSWERS = "answers"  # the signal that a canary is judged by
MAX_BYTES = 65_536  # of one event's value


class Event(BaseModel):
    """What all public events share: frozen, strict, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Interaction(Event):
    """`interactions.v1`, key user: what a user did with an item. Without `id`, a producer's own repeats count twice."""

    id: Id | None = None
    user: Id
    item: Id
    kind: Kind
    value: Number | None = None
    at: AwareDatetime
    session: Id | None = None
    extra: Extra | None = None


class Feedback(Event):
    """`feedback.v1`, key user: a reaction to one recommendation, by the id that came with the answer."""

    id: Id | None = None
    recommendation_id: Id
    user: Id
    item: Id
    kind: Reaction
    value: Number | None = None
    at: AwareDatetime


class Item(Event):
    """`items.v1`, key item: a catalogue entry; a null value (tombstone) removes it. `hidden` items are never shown."""

    item: Id
    title: Annotated[str, StringConstraints(max_length=1024)] | None = None
    categories: Annotated[list[Id], Field(max_length=64)] | None = None
    published_at: AwareDatetime | None = None
    hidden: bool = False
    extra: Extra | None = None


class Erasure(Event):
    """`erasures.v1`, key user: forget this user."""

    id: Id | None = None
    user: Id
    at: AwareDatetime


class Metric(Event):
    """`metrics.v1`, key signal: quality in one second of one partition. A block is one user's session, up to 10 asks.

    `n` blocks; `hits` and `ndcgs` (@10) and `recalls` (anywhere in the source's list) hold one mean a block, each in
    [0, 1]; `positions` is the timeline position
    {partition: next offset} that the second ended at; `counts`: asks in the blocks, or the totals that the partition has
    reached, or steps of a training. The signal `answers` has single judged answers of an assigned version, with 16 bits of a hash
    of their users in `users`, and 1 in `degraded` where an answer was; its `recalls` are the model's own list's.
    """

    signal: Id
    version: Whole = 0
    at: AwareDatetime
    n: Whole = 0
    hits: list[Share] = []
    ndcgs: list[Share] = []
    recalls: list[Share] = []
    users: list[Whole] | None = None
    degraded: list[Whole] | None = None
    positions: dict[str, Whole] = {}
    counts: dict[str, Whole] = {}


class DriftAlert(Event):
    """`drift-alerts.v1`, key signal. `before` and `now` are mean recalls of the signal's list, `effect` their difference;
    `evidence` is ln of the e-value; severity 1..3.

    `change_point` is the timeline position {partition: next offset} at which the change most likely began.
    """

    id: str
    signal: str
    version: int
    status: Literal["warning", "drift", "cleared"]
    cause: str
    severity: int
    evidence: float
    effect: float
    before: float
    now: float
    suggested_action: str
    change_point: dict[str, int]
    positions: dict[str, int]
    at: AwareDatetime


class RetrainingRequest(Event):
    """`retraining-requests.v1`, key model: train it again, and why. `cause` is the id of the alert, where one is."""

    id: Id
    model: Id = "sequence"
    reason: Literal["drift", "schedule", "volume", "manual"]
    cause: Id | None = None
    change_point: dict[str, Whole] = {}
    at: AwareDatetime


Stage = Literal["requested", "candidate", "refused", "shadow", "canary", "live", "rolled_back", "frozen", "thawed"]


class Release(Event):
    """`releases.v1`, key model: one step of one version's life, and the request that caused it.

    What is live is a fold of the whole topic (serving/release.py). `share` is the canary's share of users; `sha256`
    the manifest's; `lineage` {topic: {partition: [from, to)}} what the model has learned from; `epoch` the trainer's whose record it is.
    """

    id: Id
    model: Id = "sequence"
    version: Version
    stage: Stage
    request: Id | None = None
    reason: str | None = None
    share: Share | None = None
    sha256: str | None = None
    gates: dict[str, Any] | None = None
    lineage: dict[str, dict[str, list[int]]] | None = None
    epoch: Whole | None = None
    at: AwareDatetime

    @model_validator(mode="after")
    def _version_where_needed(self) -> Release:
        if self.stage not in ("requested", "refused", "frozen", "thawed") and self.version == 0:
            raise ValueError(f"version must be at least 1 for stage {self.stage!r}")
        if self.stage == "thawed" and self.version:
            raise ValueError("version must be 0 for stage 'thawed'")
        return self

    def apply_to(self, releases: Releases) -> str | None:
        """Take this record into the fold; returns why it was ignored, None where it counted."""
        return releases.apply(self.version, self.stage, self.share, self.sha256, self.request, self.id, self.epoch)


# Topic name -> model, for validation, the exported schemas and the golden files.
PUBLIC: dict[str, type[Event]] = {
    "interactions.v1": Interaction,
    "feedback.v1": Feedback,
    "items.v1": Item,
    "erasures.v1": Erasure,
    "metrics.v1": Metric,
    "drift-alerts.v1": DriftAlert,
    "retraining-requests.v1": RetrainingRequest,
    "releases.v1": Release,
}


def to_bytes(event: Event) -> bytes:
    """The event as it goes on the bus: JSON without the names that hold nothing."""
    return event.model_dump_json(exclude_none=True).encode()


def complaint(error: ValidationError) -> str:
    """What is wrong with a value, in one line."""
    return str(error.errors(include_url=False)[0]["msg"])


def utc(seconds: float) -> datetime:
    """Aware time from Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)

"""A release's life: every step that is allowed and every one that is not, rollbacks, canaries, what stays loaded."""

from itertools import product

import pytest

from serving.release import ALLOWED, Releases

# What the picture in serving/release.py says, read the other way round: stage before -> stages it may become.
MAY_BECOME: dict[str | None, set[str]] = {
    None: {"requested", "candidate", "refused"},
    "requested": {"candidate", "refused"},
    "candidate": {"refused", "shadow", "canary", "live", "rolled_back", "frozen"},
    "refused": set(),
    "shadow": {"canary", "live", "rolled_back", "frozen"},
    "canary": {"live", "rolled_back", "frozen"},
    "live": {"rolled_back", "frozen"},
    "superseded": {"live", "frozen"},
    "rolled_back": {"live", "frozen"},
}
PATHS: dict[str | None, list[str]] = {
    None: [],
    "requested": ["requested"],
    "candidate": ["candidate"],
    "refused": ["refused"],
    "shadow": ["candidate", "shadow"],
    "canary": ["candidate", "canary"],
    "live": ["candidate", "live"],
    "superseded": ["candidate", "live"],
    "rolled_back": ["candidate", "rolled_back"],
}


def walked(*steps: tuple[int, str]) -> Releases:
    releases = Releases()
    for version, stage in steps:
        assert releases.apply(version, stage, 0.5 if stage == "canary" else None, f"sha{version}") is None
    return releases


def at(before: str | None) -> Releases:
    """Version 2 at the stage `before`."""
    releases = walked(*((2, stage) for stage in PATHS[before]))
    if before == "superseded":
        releases.apply(3, "candidate")
        releases.apply(3, "live")
    assert releases.stages.get(2) == before
    return releases


@pytest.mark.parametrize(("before", "stage"), list(product(MAY_BECOME, ALLOWED)), ids=str)
def test_every_step_is_allowed_or_ignored_with_its_reason(before: str | None, stage: str) -> None:
    releases = at(before)
    untouched = at(before)
    ignored = releases.apply(2, stage, 0.2, "other", "r1")
    assert (ignored is None) == (before in ALLOWED[stage]) == (stage in MAY_BECOME[before])
    if ignored is None:
        becomes = "live" if stage == "frozen" else stage
        assert (releases.stages[2], releases.hashes[2], releases.requests) == (becomes, "other", {"r1": becomes})
    else:
        assert f"version 2 is {before or 'unknown'}, it cannot become {stage}" == ignored
        assert releases == untouched


def test_a_live_version_supersedes_the_one_before() -> None:
    releases = walked((1, "candidate"), (1, "canary"), (1, "live"), (2, "candidate"), (2, "canary"), (2, "live"))
    assert (releases.live, releases.canary, releases.share) == (2, 0, 0.0)
    assert releases.stages == {1: "superseded", 2: "live"}
    assert releases.lives == [1, 2]


def test_a_rollback_of_the_live_version_returns_to_the_one_that_was_live_before() -> None:
    releases = walked(*((v, stage) for v in (1, 2, 3) for stage in ("candidate", "live")))
    for wanted in (2, 1, 0):
        releases.apply(releases.live, "rolled_back")
        assert releases.live == wanted
        assert releases.stages.get(wanted, "live") == "live"
    assert (set(releases.stages.values()), releases.lives) == ({"rolled_back"}, [])


def test_a_rollback_skips_what_was_rolled_back_itself() -> None:
    releases = walked(*((v, stage) for v in (1, 2) for stage in ("candidate", "live")), (2, "rolled_back"), (3, "candidate"), (3, "live"))
    releases.apply(3, "rolled_back")
    assert releases.live == 1


def test_an_operator_may_bring_an_old_version_back_and_undo_that() -> None:
    releases = walked(*((v, stage) for v in (1, 2) for stage in ("candidate", "live")), (1, "live"))
    assert (releases.live, releases.stages) == (1, {1: "live", 2: "superseded"})
    releases.apply(1, "rolled_back")
    assert (releases.live, releases.stages) == (2, {1: "rolled_back", 2: "live"})
    assert releases.apply(1, "live") is None
    assert releases.live == 1


def test_a_rollback_of_a_canary_leaves_the_live_version() -> None:
    releases = walked((1, "candidate"), (1, "live"), (2, "candidate"), (2, "canary"), (2, "rolled_back"))
    assert (releases.live, releases.canary, releases.share, releases.lives) == (1, 0, 0.0, [1])


def test_a_rollback_of_the_live_version_leaves_the_canary() -> None:
    releases = walked(*((v, stage) for v in (1, 2) for stage in ("candidate", "live")), (3, "candidate"), (3, "canary"), (2, "rolled_back"))
    assert (releases.live, releases.canary, releases.share) == (1, 3, 0.5)


@pytest.mark.parametrize("version", [2, 3])
def test_an_unknown_version_that_is_not_newer_than_all_that_were_live_is_refused(version: int) -> None:
    releases = walked((1, "candidate"), (1, "live"), (3, "candidate"), (3, "live"))
    releases.stages.pop(version, None)
    ignored = releases.apply(version, "candidate")
    assert ignored == f"version {version} is not newer than 3, which was live"
    assert version not in releases.stages
    assert releases.apply(4, "candidate") is None


def test_a_canary_has_a_stable_share_of_the_users() -> None:
    releases = walked((1, "candidate"), (1, "live"), (2, "candidate"))
    assert {releases.version_for(f"u{n}") for n in range(100)} == {(1, "live")}
    releases.apply(2, "canary", 0.1)
    arms = {f"u{n}": releases.version_for(f"u{n}") for n in range(20_000)}
    assert set(arms.values()) == {(1, "live"), (2, "canary")}
    assert sum(arm == "canary" for _, arm in arms.values()) / len(arms) == pytest.approx(0.1, abs=0.01)
    assert all(releases.version_for(user) == arm for user, arm in arms.items())
    releases.share = 0.3
    assert all(releases.version_for(user) == (2, "canary") for user, (_, arm) in arms.items() if arm == "canary")


def test_another_canary_has_other_users() -> None:
    def users(version: int) -> set[int]:
        releases = walked((version, "candidate"), (version, "canary"))
        releases.share = 0.1
        return {n for n in range(5_000) if releases.version_for(str(n))[1] == "canary"}

    assert len(users(2) & users(3)) < 0.3 * len(users(2))


@pytest.mark.parametrize(("share", "arms"), [(0.0, {"live"}), (1.0, {"canary"})])
def test_nobody_and_everybody_are_shares(share: float, arms: set[str]) -> None:
    releases = walked((1, "candidate"), (1, "live"), (2, "candidate"))
    releases.apply(2, "canary", share)
    assert {releases.version_for(f"u{n}")[1] for n in range(2_000)} == arms


def test_without_any_version_all_are_served_by_none() -> None:
    releases = Releases()
    assert (releases.version_for("u"), releases.newest, releases.loaded(3)) == ((0, "live"), 0, [])


def test_loaded_are_live_and_canary_and_the_latest_lives_before_them() -> None:
    releases = walked(*((v, stage) for v in (1, 2, 3, 4) for stage in ("candidate", "live")), (5, "candidate"), (5, "canary"))
    assert [releases.loaded(keep) for keep in (1, 2, 3, 4, 9)] == [[4, 5], [4, 5], [3, 4, 5], [2, 3, 4, 5], [1, 2, 3, 4, 5]]
    assert releases.newest == 5


def test_the_same_records_make_the_same_state() -> None:
    steps = [(v, stage) for v in (1, 2) for stage in ("requested", "candidate", "canary", "live")]
    assert walked(*steps) == walked(*steps)


def test_a_candidate_older_than_what_was_live_is_ignored_also_after_its_request() -> None:
    releases = Releases()
    for version, stage in ((3, "requested"), (5, "requested"), (5, "candidate"), (5, "canary"), (5, "live")):
        assert releases.apply(version, stage) is None
    assert "not newer than 5" in str(releases.apply(3, "candidate"))
    assert releases.apply(3, "live") is not None and releases.live == 5


def test_a_record_that_was_read_before_moves_nothing() -> None:
    releases = Releases()
    for n, (version, stage) in enumerate([(1, "candidate"), (1, "live"), (2, "candidate"), (2, "live")]):
        assert releases.apply(version, stage, id=f"r{n}") is None
    assert releases.apply(1, "live", id="r1") == "the record r1 has been read before" and releases.live == 2
    assert releases.apply(1, "live", id="operator-1") is None and releases.live == 1


@pytest.mark.parametrize("stage", ["requested", "candidate", "refused"])
def test_an_absurd_version_is_ignored(stage: str) -> None:
    releases = walked((1, "candidate"), (1, "live"))
    assert "more than 1000 beyond 1" in str(releases.apply(2**31 - 1, stage))
    assert releases.newest == 1


def test_a_second_canary_ends_the_first() -> None:
    releases = walked((1, "candidate"), (1, "canary"), (2, "candidate"), (2, "canary"))
    assert (releases.canary, releases.stages[1]) == (2, "superseded")


def test_while_releases_are_frozen_what_is_live_stays_so_and_may_only_be_rolled_back_or_pinned_anew() -> None:
    releases = walked(*((v, stage) for v in (1, 2) for stage in ("candidate", "live")), (3, "candidate"), (3, "canary"))
    assert releases.apply(0, "frozen", id="f") is None
    assert (releases.live, releases.canary, releases.stages[3]) == (2, 0, "superseded")
    assert releases.apply(4, "candidate") is None
    for version, stage in ((4, "canary"), (4, "live"), (4, "shadow"), (1, "live")):
        assert (
            releases.apply(version, stage) == f"version {version} cannot become {stage}: releases are frozen until an operator thaws them"
        )
    assert releases.apply(1, "frozen") is None and releases.live == 1
    assert releases.apply(1, "rolled_back") is None and (releases.live, releases.frozen) == (2, True)
    assert releases.apply(0, "thawed") is None and not releases.frozen
    assert releases.apply(0, "thawed") == "releases are not frozen"
    assert releases.apply(0, "frozen", id="f") == "the record f has been read before"
    assert releases.apply(4, "canary", 0.1) is None


def test_a_trainer_whose_epoch_is_over_says_nothing_any_more_and_operators_have_none() -> None:
    releases = Releases()
    assert releases.apply(1, "requested", epoch=1) is None
    assert releases.apply(1, "candidate", epoch=2) is None
    assert releases.apply(1, "live", epoch=1) == "the epoch 1 is over, a trainer has begun epoch 2"
    assert releases.apply(1, "live") is None
    assert (releases.live, releases.epoch) == (1, 2)

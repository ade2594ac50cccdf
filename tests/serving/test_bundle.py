"""A bundle is what its manifest says, or `Corrupt`; a vocabulary knows rows and items both ways."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.histories import LENGTH, pauses
from learners.items import Items
from learners.online import Online
from learners.profiles import RECENT
from serving.bundle import MANIFEST, SIGNATURE, Corrupt, seal, verify
from serving.signature import new_key
from serving.vocabulary import Places, Vocabulary, encoded, read

ABC = Vocabulary(list("abc"), {"a": 1, "b": 2, "c": 3}, [])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "7"
    made.mkdir()
    (made / "model.onnx").write_bytes(bytes(range(256)))
    (made / "vocabulary.json").write_text(json.dumps(["tea", "cup", "töpfe"]))
    (made / "popular.json").write_text(json.dumps(["cup"]))
    (made / "card.json").write_text(json.dumps({"version": 7}))
    return made


def test_a_sealed_bundle_is_verified_by_the_hash_of_its_manifest(folder: Path) -> None:
    sha256 = seal(folder)
    verify(folder)
    verify(folder, sha256)
    assert sha256 == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest == {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != MANIFEST}


def test_sealing_twice_gives_the_same_hash(folder: Path) -> None:
    assert seal(folder) == seal(folder)


def changed(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[100] ^= 1
    (folder / "model.onnx").write_bytes(data)


def missing(folder: Path) -> None:
    (folder / "popular.json").unlink()


def extra(folder: Path) -> None:
    (folder / "sneaked.py").write_text("")


def extra_folder(folder: Path) -> None:
    (folder / "more").mkdir()


def linked(folder: Path) -> None:
    """The same bytes, but from a place that others may write."""
    elsewhere = folder.parent / "elsewhere.onnx"
    (folder / "model.onnx").rename(elsewhere)
    (folder / "model.onnx").symlink_to(elsewhere)


def escaping(folder: Path) -> None:
    """The manifest names a file outside."""
    (folder.parent / "outside.json").write_text("{}")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["../outside.json"] = hashlib.sha256(b"{}").hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def swapped(folder: Path) -> None:
    (folder / "card.json").rename(folder / "x")
    (folder / "popular.json").rename(folder / "card.json")
    (folder / "x").rename(folder / "popular.json")


@pytest.mark.parametrize("harm", [changed, missing, extra, extra_folder, linked, escaping, swapped], ids=lambda f: f.__name__)
def test_a_bundle_that_is_not_what_its_manifest_says_is_corrupt(folder: Path, harm: Callable[[Path], None]) -> None:
    sha256 = seal(folder)
    harm(folder)
    with pytest.raises(Corrupt, match=str(folder)):
        verify(folder)
    with pytest.raises(Corrupt):
        verify(folder, sha256)


def test_a_bundle_sealed_anew_is_not_the_one_that_was_released(folder: Path) -> None:
    sha256 = seal(folder)
    changed(folder)
    seal(folder)
    verify(folder)
    with pytest.raises(Corrupt, match="not the manifest of"):
        verify(folder, sha256)


def test_a_vocabulary_that_is_not_the_released_one_is_refused(folder: Path) -> None:
    sha256 = seal(folder)
    assert Vocabulary.load(folder, sha256).items == ["tea", "cup", "töpfe"]
    (folder / "vocabulary.json").write_text(json.dumps(["cup", "tea", "töpfe"]))
    with pytest.raises(Corrupt, match=r"vocabulary\.json: not what the manifest says"):
        Vocabulary.load(folder, sha256)
    seal(folder)
    with pytest.raises(Corrupt, match="not the manifest of"):
        Vocabulary.load(folder, sha256)


def test_a_vocabulary_gives_item_i_row_i_plus_1(folder: Path) -> None:
    seal(folder)
    known = Vocabulary.load(folder)
    assert (known.items, known.row, known.popular) == (["tea", "cup", "töpfe"], {"tea": 1, "cup": 2, "töpfe": 3}, ["cup"])


@given(st.lists(st.tuples(st.sampled_from("abcxyz"), st.integers(0, 200_000)), max_size=2 * LENGTH), st.integers(0, 99))
def test_a_model_reads_the_newest_items_that_it_knows_on_the_right_and_the_pauses_after_them(
    history: list[tuple[str, int]], last: int
) -> None:
    online, now = Online(), 1e9
    for item, pause in history:
        online.learn_one("u", item, now)
        now += pause
    place, (_, known) = online.profiles.number("u") or (-1, -1), Places(ABC, online.items)()
    (found, nobodys) = read(np.array([place, (-1, -1)]), np.array([last, 7]), known, *online.profiles.tables(), online.items.table)
    after = [*pauses(np.array([pause for _, pause in history[:-1]], float)).tolist(), last]  # as trainings see them
    kept = [[ABC.row[item], pause] for (item, _), pause in list(zip(history, after, strict=False))[-RECENT:] if item in "abc"][-LENGTH:]
    assert (found.dtype, found.shape) == (np.int64, (2, LENGTH)) and not nobodys.any()
    assert found.T.tolist() == [[0, 0]] * (LENGTH - len(kept)) + kept
    alone = encoded(ABC.named([item for item, _ in history]))
    assert not alone[1].any() and alone[0][alone[0] > 0].tolist() == [ABC.row[item] for item, _ in history if item in "abc"][-LENGTH:]


@given(st.lists(st.tuples(st.sampled_from(["learn", "remove", "ask"]), st.sampled_from("abcxyz")), max_size=40), st.integers(0, 150))
def test_items_are_found_in_whatever_rows_they_come_to_be(steps: list[tuple[str, str]], before: int) -> None:
    items = Items()
    for n in range(before):
        items.learn(f"i{n}")
    places = Places(ABC, items)
    for step, name in [*steps, ("ask", "")]:
        if step == "learn":
            items.learn(name)
        elif step == "remove" and name in items.row:
            items.remove(name)
        elif step == "ask":
            rows, known = places()
            assert rows[1:].tolist() == items.named(ABC.items).tolist() and rows[0] == -1
            assert known[: len(items.names)].tolist() == [ABC.row.get(name, 0) for name in items.names]


def test_a_signed_bundle_is_one_versions_and_its_makers_only(folder: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.pem", tmp_path / "other.pem"
    trusted, foreign = new_key(mine), new_key(other)
    seal(folder, 7, mine)
    verify(folder, trusted=trusted, version=7)
    assert Vocabulary.load(folder, trusted=trusted, version=7).items == ["tea", "cup", "töpfe"]
    with pytest.raises(Corrupt, match="not a signature of version 7 by the key that is trusted"):
        verify(folder, trusted=foreign, version=7)
    with pytest.raises(Corrupt, match="signature of version 8"):
        verify(folder, trusted=trusted, version=8)
    with pytest.raises(Corrupt, match="signature of version"):
        Vocabulary.load(folder, trusted=trusted, version=9)


@pytest.mark.parametrize("forged", ["none", "foreign", "old", "noise"])
def test_a_bundle_without_a_true_signature_is_refused(folder: Path, tmp_path: Path, forged: str) -> None:
    mine, other = tmp_path / "mine.pem", tmp_path / "other.pem"
    trusted = new_key(mine)
    new_key(other)
    seal(folder, 3, mine)
    old = (folder / SIGNATURE).read_bytes()
    (folder / "model.onnx").write_text("changed by somebody")
    seal(folder, 3, other)  # whoever has no key can still write a manifest
    if forged == "none":
        (folder / SIGNATURE).unlink()
    elif forged == "old":
        (folder / SIGNATURE).write_bytes(old)
    elif forged == "noise":
        (folder / SIGNATURE).write_bytes(bytes(64))
    verify(folder)
    with pytest.raises(Corrupt, match="not a signature"):
        verify(folder, trusted=trusted, version=3)


def test_a_key_is_its_owners_only_and_kept_where_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "signing.key"
    public = new_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert new_key(file) == public and len(bytes.fromhex(public)) == 32

"""Reading a file of interactions: by time, ties by a seeded hash, whatever the separator."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from infra.replay import BadFile, rows


def test_rows_come_by_time_and_ties_by_seed(tmp_path: Path) -> None:
    lines = ["user,item,value,timestamp", *(f"u{n},i{n},1,5" for n in range(50)), "first,i,2.5,1"]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    one, again, other = rows(tmp_path / "a.csv", 1), rows(tmp_path / "a.csv", 1), rows(tmp_path / "a.csv", 2)
    assert one[0] == ("first", "i", 2.5, 1.0)
    assert one == again != other
    assert sorted(one) == sorted(other)
    assert [r.user for r in one[1:]] != [f"u{n}" for n in range(50)]


def test_recbole_headers_tabs_and_gzip_are_understood(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.inter.gz", "wt") as out:
        out.write("user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t9\t3\t1\n")
    assert rows(tmp_path / "a.inter.gz") == [("7", "9", 3.0, 1.0)]


@pytest.mark.parametrize(
    ("text", "said"), [("a,b\n", "no column"), ("user,item,timestamp\nu,i,soon\n", "line 2"), ("user,item,timestamp\nu\n", "line 2")]
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadFile, match=said):
        rows(tmp_path / "a.csv")
    with pytest.raises(BadFile, match="does not exist"):
        rows(tmp_path / "b.csv")

"""Reading a file of interactions: by time, ties by a seeded hash, whatever the separator."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from infra.interactions import BadFile, rows


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


def test_a_time_may_be_iso_8601_with_its_offset(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item,timestamp\nu,i,1970-01-01T02:00:01+02:00\nu,j,2.5\n")
    assert rows(tmp_path / "a.csv") == [("u", "i", None, 1.0), ("u", "j", None, 2.5)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", "no column"),
        ("user,item,timestamp\nu,i,soon\n", "line 2: timestamp 'soon' is no time"),
        ("user,item,timestamp\nu,i,1\nu,i,2026-01-01T00:00:00\n", "line 3: timestamp '2026.* is no time"),
        ("user,item,value,timestamp\nu,i,x,1\n", "line 2: value 'x' is no number"),
        ("user,item,timestamp\nu,i,1600000000000\n", "line 2: timestamp '1600000000000' is no time: Unix seconds"),
        ("user,item,timestamp\nu,i,nan\n", "line 2: timestamp 'nan' is no time"),
        ("user,item,value,timestamp\nu,i,inf,1\n", "line 2: value 'inf' is no number"),
        ("user,item,timestamp\nu,,1\n", "line 2: item '' is no name"),
        ("user,item,timestamp\nu\n", "line 2: 1 columns instead of 3"),
        ("user,item,timestamp\n", "no interactions"),
        ("", "no column"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadFile, match=said):
        rows(tmp_path / "a.csv")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_text("user,item,timestamp\n")
    (tmp_path / "b.csv").write_bytes("user,item,timestamp\nJosé,i,1\n".encode("latin-1"))
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"user,item,timestamp\n" + b"u,i,1\n" * 50)[:-9])
    for name in ("a.csv.gz", "b.csv", "c.csv.gz", "there-is-none.csv", "."):
        with pytest.raises(BadFile, match="cannot be read"):
            rows(tmp_path / name)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffuser,item,timestamp\nu,i,1\n")
    assert rows(tmp_path / "a.csv") == [("u", "i", None, 1.0)]

"""The cells of a file: what is a row, what is a column, and what is refused."""

from __future__ import annotations

import datetime
from pathlib import Path

import polars as pl
import pytest

from transference.core.errors import DataError
from transference.data.rawtable import read_table


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_narrower_and_wider_than_the_header_are_all_named(tmp_path, end):
    rows = ["a,b,y", "1,2,p", "3,4", "", '5,6,""', "   ", "7", "8,9,q,r"]
    with pytest.raises(DataError) as caught:
        read_table(table(tmp_path, end.join(rows)))
    told = str(caught.value)
    assert "rows.csv: 3 faults" in told
    assert "row 3 must be of 3 cells, as the header has. Got 2 instead. Write an empty cell too" in told
    assert "row 7 must be of 3 cells, as the header has. Got 1 instead" in told
    assert "row 8 must be of 3 cells, as the header has. Got 4 instead. Put cells that hold ','" in told


def test_many_narrow_rows_are_counted(tmp_path):
    with pytest.raises(DataError, match=r"rows\.csv: 6 faults(?s:.*)25 more rows have another number of cells"):
        read_table(table(tmp_path, "a,b\n" + "1\n" * 30))


def test_rows_whose_last_cells_are_empty_are_whole(tmp_path):
    long = "word, " * 40_000  # longer than the csv module takes by itself
    read = read_table(table(tmp_path, f'a,b,y\r\n"{long}",2,\r\n\r\n"x\r\ny",,""\r\n1,2,z\r\n'))
    assert read.columns["y"] == [None, None, "z"]
    assert read.columns["a"] == [long.strip(), "x\r\ny", "1"]
    assert read.numbers == [2, 4, 5]


def test_old_line_ends_and_names_of_two_lines_are_read(tmp_path):
    assert read_table(table(tmp_path, "a,y\r1,p\r2,q\r")).columns == {"a": ["1", "2"], "y": ["p", "q"]}
    assert read_table(table(tmp_path, '"a\nb",y\n1,p\n')).columns == {"a\nb": ["1"], "y": ["p"]}


def test_parquet_columns_are_told_apart_and_of_readable_types(tmp_path):
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"a": [1.0], " a": [9.0]}).write_parquet(path)
    with pytest.raises(DataError, match="The column names of 'rows.parquet' must be unique. Got 'a' twice"):
        read_table(path)
    pl.DataFrame({"d": [datetime.timedelta(1), None]}).write_parquet(path)
    with pytest.raises(DataError, match=r"The column 'd' must be of text, numbers or lists.*Got \"?Duration"):
        read_table(path)

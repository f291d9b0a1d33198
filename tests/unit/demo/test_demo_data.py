"""The example's data: where they come from, and what cleaning does to holes, slips and negative prices."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.demo.data import MAX_GAP, align, clean, panel, read_closes, simple_returns
from swarm_deploy.demo.main import EXAMPLES, load_books

RISK = EXAMPLES / "risk"


def days(count: int, start: str = "2020-04-13") -> list[str]:
    """Consecutive dates."""
    return [str(np.datetime64(start) + i) for i in range(count)]


def test_the_data_are_those_that_the_provenance_names() -> None:
    text = (RISK / "PROVENANCE.md").read_text()
    digest = re.search(r"SHA-256 of `closes.csv.gz`: `([0-9a-f]{64})`", text)
    assert digest is not None
    assert hashlib.sha256((RISK / "closes.csv.gz").read_bytes()).hexdigest() == digest.group(1)
    for licence in re.findall(r"`(LICENSE-[^`]+)`", text):
        assert (RISK / licence).stat().st_size > 500


def test_the_books_have_thousands_of_common_days_of_real_series() -> None:
    books = load_books(RISK)
    core, hedged = books["core"].panel, books["hedged"].panel
    assert {"sp500", "nasdaq", "wti", "vix"} <= set(hedged.names)
    assert core.returns.shape == (5011, 5)
    assert hedged.returns.shape == (1252, 6)
    for book in books.values():
        p = book.panel
        assert np.isfinite(p.returns).all()
        assert (p.closes > 0).all()
        assert (np.diff(p.dates) > np.timedelta64(0)).all()
        assert np.diff(p.dates).max() <= np.timedelta64(MAX_GAP, "D")


def test_known_days_of_history_are_where_they_belong() -> None:
    core = load_books(RISK)["core"].panel
    at = {str(d): i for i, d in enumerate(core.dates)}
    sp500 = core.names.index("sp500")
    # The worst day of the financial crisis, and the first day after September 11, a return over a week.
    assert simple_returns(core.returns[at["2008-10-15"], sp500]) == pytest.approx(-0.0903, abs=1e-4)
    assert simple_returns(core.returns[at["2001-09-17"], sp500]) == pytest.approx(-0.0492, abs=1e-4)
    assert "2001-09-12" not in at


def test_what_is_dropped_from_the_real_data_is_only_what_is_missing() -> None:
    books = load_books(RISK)
    assert {(d.series, d.reason) for b in books.values() for d in b.panel.defects} == {
        ("wti", "missing"),
        ("vix", "missing"),
    }


def test_a_negative_price_is_dropped_and_said_so() -> None:
    raw = list(zip(days(5), ["20.11", "18.27", "-37.63", "10.01", "13.78"], strict=True))
    series, defects = clean("wti", raw)
    assert series.closes.tolist() == [20.11, 18.27, 10.01, 13.78]
    assert [(d.date, d.value) for d in defects] == [("2020-04-15", "-37.63")]
    assert "not positive" in defects[0].reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [(".", "missing"), ("NA", "missing"), ("n.q.", "not a number"), ("inf", "not finite"), ("nan", "not finite"),
     ("0", "not positive")],
)  # fmt: skip
def test_each_kind_of_bad_value_is_dropped_with_its_reason(value: str, reason: str) -> None:
    series, defects = clean("x", list(zip(days(3), ["1", value, "2"], strict=True)))
    assert series.closes.tolist() == [1.0, 2.0]
    assert reason in defects[0].reason


def test_empty_cells_of_the_outer_join_are_no_defects() -> None:
    series, defects = clean("x", list(zip(days(3), ["1", "", "2"], strict=True)))
    assert len(series.dates) == 2
    assert defects == []


def test_a_date_that_cannot_be_read_is_dropped() -> None:
    series, defects = clean("x", [("2020-01-01", "1"), ("soon", "2"), ("2020-13-01", "3")])
    assert len(series.dates) == 1
    assert [d.date for d in defects] == ["soon", "2020-13-01"]


def test_a_day_given_twice_keeps_its_first_value() -> None:
    series, defects = clean("x", [("2020-01-01", "1"), ("2020-01-02", "2"), ("2020-01-02", "2"), ("2020-01-02", "3")])
    assert series.closes.tolist() == [1.0, 2.0]
    assert len(defects) == 1
    assert "second value" in defects[0].reason


def test_a_slipped_decimal_point_is_dropped_and_a_real_jump_is_kept() -> None:
    slip, defects = clean("x", list(zip(days(5), ["50", "51", "5.12", "51.5", "52"], strict=True)))
    assert slip.closes.tolist() == [50, 51, 51.5, 52]
    assert "spike" in defects[0].reason
    # VIX in February 2018: up by 116 % in a day, and only half of it gone the next.
    jump, defects = clean("vix", list(zip(days(4), ["13.47", "17.31", "37.32", "29.98"], strict=True)))
    assert len(jump.closes) == 4
    assert defects == []


@given(st.permutations(range(8)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    rows = [(day, str(1.0 + 0.01 * i)) for i, day in enumerate(days(8))]
    series, _ = clean("x", [rows[i] for i in order])
    assert series.closes.tolist() == [float(v) for _, v in rows]


def test_series_are_aligned_by_date_and_not_by_position() -> None:
    a, _ = clean("a", list(zip(days(6), "123456", strict=True)))
    b, _ = clean("b", [(d, v) for d, v in zip(days(6), "234567", strict=True) if v != "4"])
    p = align([a, b])
    assert p.closes.tolist() == [[2, 3], [4, 5], [5, 6], [6, 7]]
    np.testing.assert_allclose(p.returns[1], np.log([2.0, 5 / 3]))
    np.testing.assert_allclose(simple_returns(p.returns[1]), [1.0, 2 / 3])
    assert p.dates.astype(str).tolist() == [days(6)[i] for i in (1, 3, 4, 5)]


def test_a_return_over_a_long_closure_is_left_out() -> None:
    dates = ["2020-01-01", "2020-01-02", "2020-01-11", "2020-01-12"]
    series, _ = clean("x", list(zip(dates, "1248", strict=True)))
    p = align([series])
    assert p.dates.astype(str).tolist() == ["2020-01-02", "2020-01-12"]
    assert [d.date for d in p.defects] == ["2020-01-11"]


def test_series_without_common_days_and_unknown_names_are_refused() -> None:
    a, _ = clean("a", list(zip(days(3), "123", strict=True)))
    b, _ = clean("b", list(zip(days(3, "2021-01-01"), "123", strict=True)))
    with pytest.raises(ValueError, match="a, b have 0 days in common"):
        align([a, b])
    with pytest.raises(ValueError, match="no column is called gold; there are a"):
        panel({"a": []}, ["a", "gold"])


def test_plain_and_gzipped_files_read_alike(tmp_path: Path) -> None:
    text = "﻿Date,x,y\n2020-01-01,1,\n2020-01-02,,2\n"
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    expected = {"x": [("2020-01-01", "1"), ("2020-01-02", "")], "y": [("2020-01-01", ""), ("2020-01-02", "2")]}
    assert read_closes(tmp_path / "a.csv") == read_closes(tmp_path / "a.csv.gz") == expected
    (tmp_path / "b.csv").write_text("day,x\n")
    with pytest.raises(ValueError, match="must be called date"):
        read_closes(tmp_path / "b.csv")

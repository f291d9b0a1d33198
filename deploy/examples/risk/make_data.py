"""Makes `closes.csv.gz` from the PyPI packages `arch` and `skfolio`; see PROVENANCE.md. Needed only to make it anew.

    pip install arch skfolio
    python deploy/examples/risk/make_data.py

The values are written as they stand in the packages' files, with their gaps, full stops and all: cleaning them is the
demo's business (`swarm_deploy.demo.data`), where tests cover it. What is left out is other columns and days outside
1999 to 2018, the years that all long series have.
"""

from __future__ import annotations

import csv
import gzip
import io
from importlib.resources import files
from pathlib import Path

#: Column of the result -> (package, file, date column, value column).
SERIES = {
    "sp500": ("arch.data.sp500", "sp500.csv.gz", "Date", "Close"),
    "nasdaq": ("arch.data.nasdaq", "nasdaq.csv.gz", "Date", "Close"),
    "wti": ("arch.data.wti", "wti.csv.gz", "Date", "DCOILWTICO"),
    "vix": ("arch.data.vix", "vix.csv.gz", "Date", "vix"),
    "jpm": ("skfolio.datasets.data", "sp500_dataset.csv.gz", "Date", "JPM"),
    "xom": ("skfolio.datasets.data", "sp500_dataset.csv.gz", "Date", "XOM"),
}
FIRST, LAST = "1999-01-01", "2018-12-31"


def iso(date: str) -> str:
    """`1/4/1999` and `1999-01-04` are both 1999-01-04."""
    if "/" not in date:
        return date[:10]
    month, day, year = date.split("/")
    return f"{year}-{month:0>2}-{day:0>2}"


def main() -> None:
    days: dict[str, dict[str, str]] = {}
    for name, (package, file, date_column, value_column) in SERIES.items():
        with gzip.open(io.BytesIO(files(package).joinpath(file).read_bytes()), "rt", encoding="utf-8-sig") as text:
            for row in csv.DictReader(text):
                date = iso(row[date_column])
                if FIRST <= date <= LAST:
                    days.setdefault(date, {})[name] = row[value_column]
    out = io.StringIO()
    writer = csv.DictWriter(out, ["date", *SERIES], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({"date": date, **days[date]} for date in sorted(days))
    # No time and no name in the header, so that the same data are the same bytes.
    Path(__file__).with_name("closes.csv.gz").write_bytes(gzip.compress(out.getvalue().encode(), 9, mtime=0))


if __name__ == "__main__":
    main()

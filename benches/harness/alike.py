"""Whether two databases have the same awards and the same entries for them."""
import sqlite3
import sys

from systems import NOBODY, Bench

# Left out is what depends on which purchases came in one commit: ids, versions, the order of the entries, when they were made.
AWARDS = f"""
    SELECT c.external_id, g.name, a.purchase_external_id, a.nth, a.ordinal, a.points, coalesce(a.points_before_cap, -1), a.status,
           a.earned_at, a.opens_at, coalesce(a.closes_at, -1), a.evidence_from_at, a.evidence_from_external_id,
           coalesce(a.available_at, -1), coalesce(a.expires_at, -1)
    FROM award a JOIN customer c ON c.id = a.customer_id JOIN campaign g ON g.id = a.campaign_id WHERE c.external_id <> '{NOBODY}'
"""
ENTRIES = f"""
    SELECT c.external_id, e.kind, e.points, coalesce(g.name, ''), coalesce(a.purchase_external_id, ''), coalesce(a.nth, -1),
           coalesce(e.purchase_external_id, ''), coalesce(e.reason, ''), coalesce(e.available_at, -1), coalesce(e.expires_at, -1)
    FROM ledger_entry e JOIN customer c ON c.id = e.customer_id
    LEFT JOIN award a ON a.customer_id = e.customer_id AND a.number = e.award_number LEFT JOIN campaign g ON g.id = a.campaign_id
    WHERE c.external_id <> '{NOBODY}'
"""


def rows(bench: Bench, kind: str, name: str, sql: str) -> list[tuple[str, ...]]:
    if kind == "PostgreSQL":
        found = [tuple(line.split("\t")) for line in bench.postgres.psql(sql, name).splitlines()]
    else:
        connection = sqlite3.connect(bench.directory / f"{name}.db")
        found = [tuple(map(str, row)) for row in connection.execute(sql)]
        connection.close()
    return sorted(found)


def check(bench: Bench, databases: list[tuple[str, str]]) -> tuple[int, int]:
    """Compares databases, each told by its kind and name. Returns the number of awards and of entries. Ends the script if they differ."""
    counts = []
    for what, sql in (("award", AWARDS), ("entry", ENTRIES)):
        (_, first), *_ = databases
        expected = rows(bench, *databases[0], sql)
        for kind, name in databases[1:]:
            found = rows(bench, kind, name, sql)
            if found != expected:
                missing, extra = set(expected) - set(found), set(found) - set(expected)
                sys.exit(
                    f"{name} and {first} differ: {len(expected)} rows ({what}) in {first}, {len(found)} in {name}; "
                    f"missing {sorted(missing)[:3]}, more {sorted(extra)[:3]}"
                )
        counts.append(len(expected))
    return counts[0], counts[1]

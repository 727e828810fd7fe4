"""What the queries of all dashboards have in common, and panels in the few forms they take.

Rule: what several exporters tell alike is counted once (`max by`), and instants become ages only here.
"""

from __future__ import annotations

from typing import Final

from panels import Panel, Query, Variable

PREFIX: Final = "feature_platform_"

OWNER: Final = Variable(name="owner", query=f"label_values({PREFIX}view_info, owner)")
VIEW: Final = Variable(name="view", query=f'label_values({PREFIX}view_info{{owner=~"$owner"}}, view)')
STORE: Final = Variable(name="store", query=f'label_values({PREFIX}part_up{{part="store"}}, name)')
OF_VIEWS: Final = (OWNER, VIEW)
IN_STORES: Final = (OWNER, VIEW, STORE)

OF: Final = 'view=~"$view"'
STORES: Final = 'store=~"$store"'
IN: Final = f"{OF},{STORES}"
PUBLISHED: Final = f'{OF},clock="published"'
COMPUTED: Final = f'{OF},clock="computed"'
PART_STORE: Final = 'part="store",name=~"$store"'

# the store of a view that is not served is empty
AGE: Final = f'(time() - max by (view, store) ({PREFIX}view_data_timestamp_seconds{{{OF},store=~"$store|"}}))'


def sla(severity: str) -> str:
    """What an age is compared with: what the view promises."""
    return f'on (view) group_left () max by (view) ({PREFIX}view_sla_seconds{{severity="{severity}"}})'


def newest(metric: str, by: str, where: str = OF) -> str:
    """What all exporters agree on, once for each of some labels."""
    return f"max by ({by}) ({PREFIX}{metric}{{{where}}})"


def wrong(kind: str, by: str = "view", where: str = OF) -> str:
    """How many views (or views in stores) have a problem of a kind."""
    return f'count(max by ({by}) ({PREFIX}view_problems{{kind="{kind}",{where}}}) > 0) or vector(0)'


def rate(metric: str, by: str, where: str = IN, *, over: str = "1h") -> str:
    """Runs are minutes apart, so that a rate over less than an hour is mostly zero."""
    return f"sum by ({by}) (max without (instance, job) (rate({PREFIX}{metric}{{{where}}}[{over}])))"


def heading(title: str) -> Panel:
    """A heading over the panels that follow."""
    return Panel(title=title, kind="row")


def stat(title: str, expr: str, *, unit: str = "short", red_from: float | None = 1, says: str = "") -> Panel:
    """One number; red from a value on."""
    queries = (Query(expr=expr, legend=title),)
    return Panel(title=title, kind="stat", queries=queries, unit=unit, red_from=red_from, says=says, width=6)


def lines(title: str, *queries: tuple[str, str], unit: str = "short", says: str = "") -> Panel:
    """How something went over time."""
    made = tuple(Query(expr=expr, legend=legend) for expr, legend in queries)
    return Panel(title=title, kind="timeseries", queries=made, unit=unit, says=says)


def table(title: str, expr: str, *, unit: str = "short", says: str = "", red_from: float | None = None) -> Panel:
    """One row for each series."""
    queries = (Query(expr=expr),)
    return Panel(title=title, kind="table", queries=queries, unit=unit, says=says, red_from=red_from, width=24)

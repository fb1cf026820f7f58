"""Orders of a shop: even out what comes in, split it into lines, and give each line its price."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from pcluster import Permanent, log, task


@dataclass
class Line:
    article: str
    count: int = 1


@dataclass
class Order:
    id: str
    lines: list[Line]


#: Runs before the first order, so that it finds everything warm.
EXAMPLE = {"id": "example", "lines": [{"article": " Tea ", "count": 2}]}


@task(examples=[EXAMPLE])
def clean(order: Order) -> Order | None:
    """Evens out the names of articles. Drops an order that is empty."""
    lines = [Line(line.article.strip().lower(), line.count) for line in order.lines if line.count > 0]
    if not lines:
        log.info("order %s is empty", order.id)
        return None
    return Order(order.id, lines)


@task(examples=[EXAMPLE])
def split(order: Order) -> Iterator[dict]:
    """Makes an item of each line."""
    for line in order.lines:
        yield {"order": order.id, "article": line.article, "count": line.count}


def load(config: dict) -> dict[str, Decimal]:
    """Reads the prices from the stage's `config`. Runs once."""
    return {article: Decimal(price) for article, price in config["prices"].items()}


@task(init=load)
def price(line: dict, prices: dict[str, Decimal]) -> dict:
    """Gives a line its price."""
    if line["article"] not in prices:
        raise Permanent(f"there is no price of {line['article']}")
    return {**line, "price": str(prices[line["article"]] * line["count"])}

"""Tasks in Python that the benchmark of the engine measures, on a record of 200 bytes."""

from pydantic import BaseModel

from pcluster import task

RECORD = {
    "id": 4711, "customer": "ada@example.com", "articles": ["tea", "milk", "sugar"], "total": 12.75, "paid": True,
    "note": "please ring twice, the bell is hard to hear from the garden behind the house", "zone": "eu-west-1",
}  # fmt: skip


class Order(BaseModel):
    id: int
    customer: str
    articles: list[str]
    total: float
    paid: bool
    note: str
    zone: str


@task(examples=[RECORD])
def record(order: dict) -> dict:
    """Reads all of a record, and writes six fields."""
    return {
        "id": order["id"] + 1,
        "customer": order["customer"].upper(),
        "articles": len(order["articles"]),
        "total": order["total"] * 2,
        "paid": not order["paid"],
        "note": order["note"],
    }


@task(examples=[RECORD])
def model(order: Order) -> dict:
    """Does the same with a model of pydantic."""
    return {
        "id": order.id + 1,
        "customer": order.customer.upper(),
        "articles": len(order.articles),
        "total": order.total * 2,
        "paid": not order.paid,
        "note": order.note,
    }

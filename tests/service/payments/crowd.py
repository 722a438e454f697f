"""One of several processes that do the same to the same orders at the same moment.

    python -m tests.service.payments.crowd URL

The law: it says "ready", begins when it is told to, and prints how often it was the one that did
something, as JSON. Every payment is told of by everybody; orders with the code CODE and refunds are
asked for by everybody too.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.shop import Shop, payment, request
from vision.payments.order import Order, Status
from vision.payments.refunds import Refund, RefundRequest

# Of each process, besides the payments.
ORDERS = 10


async def crowd(url: str) -> dict[str, int]:
    shop = Shop(url)
    orders = (await shop.checkout.page(1, 100)).orders
    unpaid = [order for order in orders if order.status is Status.UNPAID]
    (paid,) = (order for order in orders if order.status is Status.PAID)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    outcomes = await asyncio.gather(
        *(shop.settler.settle(payment(each, each.order_id), "notification") for each in unpaid),
        *(
            shop.checkout.create(request(uid=f"crowd {n}", promo_code="CODE", amount=1000))
            for n in range(ORDERS)
        ),
        *(shop.refunds.refund(RefundRequest(paid.order_id, 100)) for _ in range(ORDERS)),
        return_exceptions=True,
    )
    await shop.close()
    settled = [getattr(each, "verdict", "") for each in outcomes].count("settled")
    return {
        "settled": settled,
        "ordered": sum(isinstance(each, Order) for each in outcomes),
        "refunded": sum(isinstance(each, Refund) for each in outcomes),
    }


if __name__ == "__main__":
    found = asyncio.run(crowd(sys.argv[1]))
    sys.stdout.write(f"{json.dumps(found)}\n")

"""What can go wrong with a payment, below the one tree of `vision.errors`.

The law: as in `vision.errors`: a stable code, a message for people, a path where a client's input
is to blame. A gateway's own words are quoted, never interpreted further up; whether to try again is
in the class. No message has a key, a signature or a whole notification in it.

    VisionError
     +-- PaymentError
     |    +-- GatewayUnavailable   gateway_unavailable    no answer, or not now: try again
     |    +-- GatewayRefused       gateway_refused        its code and message are in `gateway_code`
     |    +-- NotificationRefused  notification_refused   not shown to come from the gateway
     |    +-- UnknownOrder         unknown_order
     |    +-- UnknownProduct       unknown_product
     |    +-- PriceMismatch        price_mismatch         `path` and the expected value
     |    +-- PromoCodeRefused     promo_code_refused
     |    +-- OrderNotPayable      order_not_payable
     |    +-- AmbiguousOrder       ambiguous_order        several orders match
     |    +-- RefundRefused        refund_refused
     +-- SettingError
          +-- SchemaMismatch       setting_error          the database is older or newer
"""

from __future__ import annotations

from vision.errors import SettingError, VisionError


class PaymentError(VisionError):
    """Base of every error of payments."""

    code = "payment_error"


class GatewayUnavailable(PaymentError):
    """The gateway did not answer, or answered that it cannot now: what was asked may have been
    done or not. Ask for the standing, or repeat with the same numbers."""

    code = "gateway_unavailable"


class GatewayRefused(PaymentError):
    """The gateway understood and said no; repeating the same changes nothing.

    `gateway_code` is its own code, such as `ORDERPAID` or `ACQ.TRADE_HAS_SUCCESS`.
    """

    code = "gateway_refused"

    def __init__(self, message: str, *, gateway_code: str, path: str = "") -> None:
        super().__init__(message, path=path)
        self.gateway_code = gateway_code


class NotificationRefused(PaymentError):
    """What was sent is not shown to come from the gateway, or is not what a gateway sends."""

    code = "notification_refused"


class UnknownOrder(PaymentError):
    """There is no such order."""

    code = "unknown_order"


class UnknownProduct(PaymentError):
    """There is no such product, or it is not sold now."""

    code = "unknown_product"


class PriceMismatch(PaymentError):
    """A price that the client sent differs from ours; the message has the expected value."""

    code = "price_mismatch"


class PromoCodeRefused(PaymentError):
    """The promotion code does not exist, is not valid now or here, or is used up."""

    code = "promo_code_refused"


class OrderNotPayable(PaymentError):
    """The order is not in a state in which it can be paid."""

    code = "order_not_payable"


class AmbiguousOrder(PaymentError):
    """Several orders match, and what was sent does not say which is meant."""

    code = "ambiguous_order"


class RefundRefused(PaymentError):
    """The order cannot be refunded, or not by so much."""

    code = "refund_refused"


class SchemaMismatch(SettingError):
    """The database's schema is older or newer than this server; the server does not start."""

"""Payments: orders, gateways, notifications, entitlements; money moves once.

Pure: what money, an order and an entitlement are, and how a gateway signs (`*_signing`).
Edges: the SQL store, and one module per gateway (`wechat`, `alipay`, `sandbox`) behind the one
protocol of `gateway`.
"""

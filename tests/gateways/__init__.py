"""Simulators of the payment gateways: processes of their own, with their own keys and crypto."""

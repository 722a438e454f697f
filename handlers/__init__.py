"""HTTP and WebSocket: parse, validate, call one domain function, answer."""

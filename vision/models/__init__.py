"""Models: reach language models through routes, limits, timeouts and retries.

The core is pure (`call`, `catalog`, `sse`, `replies`, `candidates`, `backoff`); the edges are
`clients` and `upstream` (HTTP) and `local` (the embedded model's process).
"""

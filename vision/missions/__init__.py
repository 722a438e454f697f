"""Missions: run a graph of prompts, log every event, let anyone watch.

Pure: `template`, `graph`, `events`, `stimuli`, `mission` (what a mission is and decides).
Edges: `log`, `queue` (Redis), `writer`, `live`, `hub` (write and route), `run` and `runner` (carry
out).
`service` is what the handlers call.
"""

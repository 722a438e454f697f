"""Missions: run a graph of prompts, log every event, let anyone watch.

Pure: `graph`, `template`, `events`, `mission` (what a mission is and decides).
Edges: `log`, `queue` (Redis), `writer`, `hub`, `scheduler` (carry out, write, route).
`service` is what the handlers call.
"""

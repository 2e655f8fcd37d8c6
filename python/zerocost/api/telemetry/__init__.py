"""Observations of requests, and where they go: Prometheus, traces, the other workers."""

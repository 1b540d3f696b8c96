"""Checkpoint loading, architectures of our own, tracing, costs."""

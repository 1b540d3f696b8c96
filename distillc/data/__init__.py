"""Restoration tasks, images and metrics."""

"""Bundles, the devices that run them, and verification."""

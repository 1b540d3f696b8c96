"""The targets. Each file holds one; `base` says what a target is."""

"""State-space block families and the selective scan."""

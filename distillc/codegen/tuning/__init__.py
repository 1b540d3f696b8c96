"""The search for schedules, and what kernels cost."""

"""CPU schedules: the rules, what tuning found, and who applies them."""

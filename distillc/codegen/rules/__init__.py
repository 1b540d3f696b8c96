"""CPU schedule rules, one kernel family a file."""

"""The HTML report and the tables."""

"""A scheduled module to files: plan, sources, objects, libraries."""

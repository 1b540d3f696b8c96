"""Graph rewrites in Relax, one pass a file; `lower.py` lists them in order."""

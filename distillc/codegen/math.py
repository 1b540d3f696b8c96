from __future__ import annotations
def rewrite_math(func):
    return func

"""`python -m distillc.cli` is the console script."""

from distillc.cli import main

main()

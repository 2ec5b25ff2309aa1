"""`python -m crossrag` is the command `crossrag`."""

from .cli import main

main()

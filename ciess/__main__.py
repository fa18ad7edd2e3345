"""`python -m ciess` is the command `ciess`."""

from ciess.cli import main

main()

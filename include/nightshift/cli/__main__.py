"""`python -m nightshift.cli` is `nightshift`."""

from nightshift.cli import main

main()

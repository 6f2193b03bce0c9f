"""`python -m rlplatform` is `rlplatform`."""

from rlplatform.cli import main

main()

"""``python -m prefrestore.cli``: the same as the console script."""

from prefrestore.cli import main

main()

"""`python -m tuner`: the command line."""

from tuner.cli.main import main

main()

"""`python -m kdeploy`: the command line."""

from kdeploy.cli.main import main

main()

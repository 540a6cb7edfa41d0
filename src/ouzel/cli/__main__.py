"""`python -m ouzel.cli` is `ouzel`, for a checkout that is not on the path."""

from ouzel.cli import main

main()

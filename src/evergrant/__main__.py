"""`python -m evergrant` is the `evergrant` command."""

from evergrant.cli import main

if __name__ == "__main__":
    main()

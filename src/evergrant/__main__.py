"""The `evergrant` command, which `python -m evergrant` is too."""

import gc

gc.disable()  # what imports make stays: looking it through again and again is a fifth of what they cost

from evergrant.cli import main  # noqa: E402 - after the line above

if __name__ == "__main__":
    main()

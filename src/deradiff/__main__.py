"""``python -m deradiff``: the command line, for launchers such as accelerate's."""

from deradiff.cli import main

if __name__ == "__main__":
    main()

"""``python -m deradiff``: the command line, for launchers such as accelerate's."""

import os
import sys
from contextlib import suppress

with suppress(FileNotFoundError):  # a working folder that is gone: the command says so
    if sys.path[0] in ("", os.getcwd()):  # python -m puts the working folder there; see deradiff.local_modules
        del sys.path[0]

from deradiff.cli import main

if __name__ == "__main__":
    main()

"""The process of one cell: `python -m rlplatform.grid.child PARENT train ...` is `rlplatform train ...` that ends with its parent.

A driver may be killed without a chance to say so. Linux then sends SIGTERM to this process, which writes a checkpoint and exits as
any run does; elsewhere the run goes on to its end, and the same grid finds it locked until then.
"""

import ctypes
import os
import signal
import sys

from rlplatform.grid import EXIT_STOPPED

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def main() -> None:
    """Run the command line with what follows the parent's process id."""
    parent, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(parent):  # it was gone before we could ask
        sys.exit(EXIT_STOPPED)
    sys.argv = ["rlplatform", *arguments]
    from rlplatform.cli import main as run

    run()


if __name__ == "__main__":
    main()

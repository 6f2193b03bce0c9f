"""Many runs: the cells of a grid, where they run, and what drives them."""

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: stopped and saved, and the same command goes on

"""``python -m traceq``: the command line, for where the script is not on the PATH."""

from traceq.cli import main

if __name__ == "__main__":
    main()

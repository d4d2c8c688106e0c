"""`python -m edge`: the same as the console script `qflare-edge`."""

from edge.cli import main

if __name__ == "__main__":
    main()

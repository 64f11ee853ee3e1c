"""`python -m tuili`: the command line."""

from tuili.cli import main

if __name__ == "__main__":
    main()

"""`python -m cellvim` is `cellvim`."""

from cellvim.cli import main

if __name__ == "__main__":
    main()

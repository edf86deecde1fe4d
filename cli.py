"""``python cli.py``: the same commands as the installed ``fishr``."""

from fishr.commands import main

if __name__ == "__main__":
    main()

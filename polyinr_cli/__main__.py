"""Where `polyinr` and `python -m polyinr_cli` start: what takes long to import is imported inside.

Until then Ctrl-C ends the process without a word: there is nothing to tidy up, and nobody to catch an exception.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # or it is ignored, in the background
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """Run the command that was typed."""
    from .main import run

    run()


if __name__ == "__main__":
    main()

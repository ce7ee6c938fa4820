"""`python -m polyinr_cli` and `torchrun -m polyinr_cli`."""

from polyinr_cli.main import run

if __name__ == "__main__":
    run()

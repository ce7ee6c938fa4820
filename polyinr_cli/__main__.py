"""`python -m polyinr_cli`, and what `torchrun -m` is told."""

from polyinr_cli.main import run

if __name__ == "__main__":
    run()

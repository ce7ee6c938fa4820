"""The `polyinr` command: parse, call the core, write."""

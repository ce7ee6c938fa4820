"""`polyinr weights`: list the pretrained networks, where they are looked for, and download them."""

import sys
from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.options import Json, Quiet, Verbose


def weights(
    download: Annotated[
        list[str] | None,
        typer.Option("--download", metavar="NAME", help="Download this network and check its hash. Can be repeated."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the pretrained networks: what each is needed for, where it is looked for, whether it is present.

    --download fetches what is missing from where it is published and checks its SHA-256; then only the named networks
    are listed.

    Example: polyinr weights --download inception --download lpips
    """
    from polyinr_core.metrics.weight_files import NETWORKS, describe_network, download_network, find_network

    chosen = [find_network(name) for name in dict.fromkeys(download or ())]
    for network in chosen:
        download_network(network, progress=console.is_terminal(sys.stderr) and not quiet)
    for network in chosen or NETWORKS:
        facts = describe_network(network)
        if as_json:
            console.json_line(facts)
            continue
        console.line(f"{facts['name']}: {'present' if facts['file'] else 'missing'}")
        console.line(f"  needed for     {facts['used_for']}")
        if facts["file"]:
            console.line(f"  file           {facts['file']}")
            continue
        for number, place in enumerate(facts["places"]):
            console.line(f"  {'looked for in' if not number else '':<13}  {place}")
        console.line(f"  to get it      {facts['get']}")

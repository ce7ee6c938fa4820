"""The gallery's page: one HTML file, its style and script inside and named by their hashes in its policy."""

import base64
import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..model.generator import count_parameters
from ..snapshots.snapshot import Snapshot
from .exhibits import Exhibits
from .in_page import json_in_page
from .plan import Plan

ASSETS = files("polyinr_core") / "assets"
LONGEST = 2000  # letters of a fact


@dataclass(frozen=True)
class Maker:
    """Who made a page, when, and by which model file."""

    version: str
    when: str
    model_file: str
    bundled: bool


def page(
    snapshot: Snapshot, plan: Plan, exhibits: Exhibits, *, network: dict[str, Any] | None, maker: Maker
) -> str:
    """Return the page. Whatever a name or a fact holds is shown as text.

    With a `network` (of in_page.model_in_page, its pictures the first seeds) the page draws by itself as well.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_asset("gallery.html.jinja"))
    scripts = ("gallery.js",) if network is None else ("gallery.js", "gallery_draw.js", "gallery_easel.js")
    style, script = Markup(_asset("gallery.css")), Markup("".join(map(_asset, scripts)))
    config = snapshot.generator.config
    return template.render(
        style=style,
        script=script,
        policy=policy(style, script),
        config=config,
        snapshot=snapshot,
        parameters=count_parameters(snapshot.generator)["total"],
        origin=[(name.replace("_", " "), told(value)) for name, value in snapshot.origin.items()],
        data=told(snapshot.origin["data"]) if snapshot.origin.get("data") else None,
        plan=plan,
        show=exhibits,
        network=None if network is None else Markup(json_in_page(network)),
        network_pictures=0 if network is None else network["pictures"],
        maker=maker,
    )


def policy(style: str, script: str) -> str:
    """Return what the page may do: show pictures from beside it, follow this style and this script, no more."""
    return (
        f"default-src 'none'; img-src 'self' file:; style-src {_hash_of(style)}; script-src {_hash_of(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def told(value: Any) -> str:
    """Write a fact of a snapshot as text."""
    if isinstance(value, list):
        value = ", ".join(told(part) for part in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _hash_of(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")

"""Parse image sizes and windows: "640x360", "-0.25:1.25"."""

import math
import re

from polyinr_core.errors import RequestError

MAX_SIDE = 2**20
MAX_COORDINATE = 1e6


def parse_size(text: str) -> tuple[int, int]:
    """Parse "640x360" or "256" to (width, height). Raises RequestError."""
    match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", text.strip(), re.ASCII)
    if match is None:
        raise RequestError(f"size {text!r} is not valid; write 256 or 640x360")
    sides = [match[1], match[2] or match[1]]
    for digits in sides:
        if len(digits) > 12 or not 1 <= int(digits) <= MAX_SIDE:
            raise RequestError(f"size {text.strip()[:40]} is outside 1-{MAX_SIDE} pixels")
    return int(sides[0]), int(sides[1])


def parse_window(text: str) -> tuple[float, float, float, float]:
    """Parse "A:B" or "X0:X1,Y0:Y1" to a window (x0, y0, x1, y1). Raises RequestError."""
    spans = [_parse_span(part, text) for part in text.split(",")]
    if len(spans) > 2:
        raise RequestError(f"window {text!r} has {len(spans)} spans; write A:B or X0:X1,Y0:Y1")
    (x0, x1), (y0, y1) = spans[0], spans[-1]
    return x0, y0, x1, y1


def window_text(window: tuple[float, float, float, float]) -> str:
    """Format a window as `parse_window` parses it, exactly."""
    x0, y0, x1, y1 = window
    across, down = f"{x0!r}:{x1!r}", f"{y0!r}:{y1!r}"
    return across if across == down else f"{across},{down}"


def _parse_span(part: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(number) for number in part.split(":"))
    except ValueError:
        raise RequestError(f"window {text!r} is not valid; write A:B or X0:X1,Y0:Y1") from None
    if not all(math.isfinite(v) and abs(v) <= MAX_COORDINATE for v in (low, high)):
        raise RequestError(f"window {text!r} is outside -{MAX_COORDINATE:g} to {MAX_COORDINATE:g}")
    if low == high:
        raise RequestError(f"window {text!r} is empty: it begins and ends at {low:g}")
    return low, high

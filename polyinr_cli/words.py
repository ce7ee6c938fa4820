"""Pictures named by the words of a command line, and the words that name them again."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from polyinr_core.errors import RequestError

from .drawing import Painter
from .named import Pictures, from_word

if TYPE_CHECKING:
    from polyinr_core.latents.file import Latents


def pictures_of(
    words: Sequence[str],
    painter: Painter,
    *,
    label: str | None = None,
    psi: float | None = None,
    force: bool = False,
) -> Pictures:
    """Return the pictures of several words, in their order. Raises RequestError, FileError."""
    if words.count("-") > 1:
        raise RequestError("- is given twice; what is piped in can be read only once")
    parts = [from_word(word, painter, label=label, psi=psi, force=force) for word in words]
    starts = [0, *accumulate(map(len, parts))]

    def place(index: int) -> tuple[Pictures, int]:
        part = bisect_right(starts, index) - 1
        return parts[part], index - starts[part]

    def latents_of(index: int) -> "Latents":
        part, own = place(index)
        return part.latents(own)

    def note_of(latents: "Latents", index: int) -> dict[str, object]:
        part, own = place(index)
        return part.note(latents, own)

    return Pictures(tuple(name for part in parts for name in part.names), latents_of, note_of)


def again(words: Sequence[str], **options: object) -> list[str]:
    """Return a command's words with its options: those that are None or False are left out, True is a flag."""
    spelled = list(words)
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            spelled.append(option)
        elif isinstance(value, list | tuple):
            spelled += [part for one in value for part in (option, str(one))]
        elif value is not None and value is not False:
            spelled += [option, str(value)]
    return spelled

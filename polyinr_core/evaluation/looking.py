"""One pass: every picture is made once, and goes once through each network, for all metrics together."""

from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import torch
from torch import Tensor

from ..data.ahead import ahead
from ..errors import PolyinrError
from ..metrics.inception import InceptionFeatures, InceptionTaps
from ..metrics.networks import FeatureNetwork
from ..metrics.rules import Sense, Tap
from ..ranks import ALONE, Ranks
from .inputs import Pictures
from .keeping import Interrupted, Keeper
from .seen import Need, Seen
from .taking import Taker

BATCH = 64
AHEAD = 2  # batches that are made while one is looked at
Progress = Callable[[int, int], None]


def look(
    pictures: Pictures,
    networks: Mapping[str, FeatureNetwork],
    needs: Mapping[Sense, Need],
    *,
    batch: int = BATCH,
    device: torch.device,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
    keeper: Keeper | None = None,
) -> dict[Sense, Seen]:
    """Show the pictures, `batch` at a time, to the networks that `needs` names; every rank must call it.

    Ranks take whole batches, so that no feature depends on who computes it, and all get what all have seen.
    Pictures are made in a thread of their own while others are looked at. Memory does not grow with their number,
    but for the features that a need names. With a keeper it goes on from the state that is kept; an interruption
    keeps one. Raises Interrupted, PolyinrError.
    """
    if not needs:
        return {}
    views = {name: view_of(networks[name].to(device), needs, name) for name in {name for name, _ in needs}}
    span = span_of(len(pictures), batch, ranks)
    takers = {sense: Taker(need, span, len(pictures), place_of(device)) for sense, need in needs.items()}
    if keeper is not None:
        keeper.restore(takers)

    def done() -> int:
        return next(iter(takers.values())).count

    def take_in(found: Mapping[Sense, Tensor]) -> None:
        for (name, tap), features in found.items():
            if not bool(features.isfinite().all()):
                raise PolyinrError(
                    f"{name} gives features that are no finite numbers for pictures of {pictures.name}; its "
                    "weights are damaged, or are of another network"
                )
            takers[name, tap].add(features.float())

    hand = ThreadPoolExecutor(1, thread_name_prefix="taking in")  # no interruption reaches it: a state is whole
    batches = ahead(rebatched(pictures.passes(range(span.start + done(), span.stop)), batch), depth=AHEAD)
    try:
        with closing(batches), hand:
            for pixels in batches:
                found = {
                    (name, tap): features
                    for name, view in views.items()
                    for tap, features in view(pixels.to(device)).items()
                    if (name, tap) in takers
                }
                hand.submit(take_in, found).result()
                if progress is not None:
                    progress(done(), len(span))
                if keeper is not None:
                    keeper.keep_if_due(takers)
    except KeyboardInterrupt as error:
        hand.shutdown()
        if keeper is None or not done():
            raise
        keeper.keep(takers)
        raise Interrupted(
            f"interrupted; {done()} of {len(span)} pictures of {pictures.name} are kept in "
            f"{keeper.cache.folder}: the same command goes on from there"
        ) from error
    return {sense: taker.seen(ranks) for sense, taker in takers.items()}


def span_of(count: int, batch: int, ranks: Ranks) -> range:
    """Return this rank's contiguous share of so many pictures, in whole batches."""
    share = ranks.share(-(-count // batch))
    return range(min(share.start * batch, count), min(share.stop * batch, count))


def place_of(device: torch.device) -> torch.device:
    """Return where statistics are kept: where float64 is."""
    return torch.device("cpu") if device.type == "mps" else device


def view_of(
    network: FeatureNetwork, needs: Mapping[Sense, Need], name: str
) -> Callable[[Tensor], dict[Tap, Tensor]]:
    """Return how pictures [N, 3, H, W] become features [N, d] by the name of their tap, in one pass."""
    taps = {tap for other, tap in needs if other == name}
    if taps == {"pooled"}:
        return lambda pixels: {"pooled": network(pixels)}
    assert isinstance(network, InceptionFeatures), name
    inside = InceptionTaps(network)

    def tapped(pixels: Tensor) -> dict[Tap, Tensor]:
        found = inside(pixels)
        return {"pooled": found.pooled, "spatial": found.spatial, "probabilities": found.probabilities}

    return tapped


def rebatched(passes: Iterable[Tensor], size: int) -> Generator[Tensor, None, None]:
    """Yield what comes in passes [n, ...] in batches of `size`, the last one as it falls."""
    waiting: list[Tensor] = []
    held = 0
    for part in passes:
        waiting.append(part)
        held += len(part)
        if held >= size:
            joined = torch.cat(waiting)
            whole = held // size * size
            yield from joined[:whole].split(size)
            waiting, held = [joined[whole:]], held - whole
    if held:
        yield torch.cat(waiting)

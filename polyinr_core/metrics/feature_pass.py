"""What is evaluated: images of one size in a fixed order, or what was once seen of such."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Protocol

import torch
from torch import Tensor

from polyinr_core.data.loader import prefetch
from polyinr_core.errors import PolyinrError
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext

from .extractors import FeatureNetwork
from .feature_statistics import Cache, Need, Seen, Taker
from .inception import InceptionFeatures, InceptionTaps
from .registry import Sense, Tap


class Judged(Protocol):
    """Images, or what was seen of them, all of `side` pixels squared, and what a card says of them.

    `sha256` tells them from others: it changes with any byte that they are made of. Where side or number are not
    known they are 0.
    """

    @property
    def name(self) -> str: ...

    @property
    def side(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    def __len__(self) -> int: ...


class Images(Judged, Protocol):
    """Images in a fixed order."""

    def passes(self, span: range | None = None) -> Iterator[Tensor]:
        """Yield images of those numbers, all without them, some at a time: uint8 [n, 3, side, side].

        An image is the same whatever is asked for beside it.
        """


EVERY = 30.0  # seconds between two states
SHARE = 20  # and at least so many times what writing one takes


class Interrupted(PolyinrError):
    """A pass that a person has stopped; what it had seen is kept."""

    exit_code = 130


class Keeper:
    """The place of one pass's state in the cache: of all its senses together, whole or absent.

    `key` holds all that the state depends on, the batch and this process's share of the images included:
    going on gives to the bit what an undisturbed pass gives.
    """

    def __init__(self, cache: Cache, key: Mapping[str, Any]) -> None:
        self.cache = cache
        self.key = key
        self.next = time.monotonic() + EVERY

    def restore(self, takers: Mapping[Sense, Taker]) -> None:
        """Give takers the state that is kept, if there is one."""
        found = self.cache.load(self.key)
        if found is None:
            return
        count, tensors = found
        for number, taker in enumerate(takers.values()):
            state: dict[str, Tensor] = {}
            for name, tensor in tensors.items():
                owner, _, part = name.partition(".")
                if owner == str(number):
                    state[part] = tensor
            taker.restore(state, count)

    def keep_if_due(self, takers: Mapping[Sense, Taker]) -> None:
        """Keep the state if it is time to."""
        if (start := time.monotonic()) >= self.next:
            self.keep(takers)
            now = time.monotonic()
            self.next = now + max(EVERY, SHARE * (now - start))

    def keep(self, takers: Mapping[Sense, Taker]) -> None:
        """Keep the state. Raises FileError."""
        tensors = {
            f"{number}.{name}": tensor
            for number, taker in enumerate(takers.values())
            for name, tensor in taker.state().items()
        }
        self.cache.store(self.key, next(iter(takers.values())).count, tensors)

    def forget(self) -> None:
        """Remove the state: the pass is finished."""
        self.cache.forget(self.key)


BATCH = 64
AHEAD = 2  # batches that are made while one is looked at
Progress = Callable[[int, int], None]


def look(
    images: Images,
    networks: Mapping[str, FeatureNetwork],
    needs: Mapping[Sense, Need],
    *,
    batch: int = BATCH,
    device: torch.device,
    progress: Progress | None = None,
    ranks: DistributedContext = SINGLE_PROCESS,
    keeper: Keeper | None = None,
) -> dict[Sense, Seen]:
    """Show the images, `batch` at a time, to the networks that `needs` names; every rank must call it.

    Ranks take whole batches, so that no feature depends on who computes it, and all get what all have seen.
    Images are made in a thread of their own while others are looked at. Memory does not grow with their number,
    but for the features that a need names. With a keeper it goes on from the state that is kept; an interruption
    keeps one. Raises Interrupted, PolyinrError.
    """
    if not needs:
        return {}
    views = {name: view_of(networks[name].to(device), needs, name) for name in {name for name, _ in needs}}
    span = span_of(len(images), batch, ranks)
    takers = {sense: Taker(need, span, len(images), place_of(device)) for sense, need in needs.items()}
    if keeper is not None:
        keeper.restore(takers)

    def done() -> int:
        return next(iter(takers.values())).count

    def take_in(found: Mapping[Sense, Tensor]) -> None:
        for (name, tap), features in found.items():
            if not bool(features.isfinite().all()):
                raise PolyinrError(
                    f"{name} gives features that are no finite numbers for images of {images.name}; its "
                    "weights are damaged, or are of another network"
                )
            takers[name, tap].add(features.float())

    hand = ThreadPoolExecutor(1, thread_name_prefix="taking in")  # no interruption reaches it: a state is whole
    batches = prefetch(rebatched(images.passes(range(span.start + done(), span.stop)), batch), depth=AHEAD)
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
            f"interrupted; {done()} of {len(span)} images of {images.name} are kept in "
            f"{keeper.cache.folder}: the same command goes on from there"
        ) from error
    return {sense: taker.seen(ranks) for sense, taker in takers.items()}


def span_of(count: int, batch: int, ranks: DistributedContext) -> range:
    """Return this rank's contiguous share of so many images, in whole batches."""
    share = ranks.local_slice(-(-count // batch))
    return range(min(share.start * batch, count), min(share.stop * batch, count))


def place_of(device: torch.device) -> torch.device:
    """Return where statistics are kept: where float64 is."""
    return torch.device("cpu") if device.type == "mps" else device


def view_of(network: FeatureNetwork, needs: Mapping[Sense, Need], name: str) -> Callable[[Tensor], dict[Tap, Tensor]]:
    """Return how images [N, 3, H, W] become features [N, d] by the name of their tap, in one pass."""
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

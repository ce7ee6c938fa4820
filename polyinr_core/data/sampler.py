"""The order of an endless stream of images: a pure function of the seed and the position in it."""

import torch
from torch import Tensor

from polyinr_core.errors import ConfigError
from polyinr_core.runtime.rng import generator_for


class Order:
    """Places of a stream: item numbers 0 .. count - 1; `count` is added to those shown mirrored.

    Every epoch has every place once, in an order drawn from `seed` and the epoch's number, so no stretch of the
    stream repeats or skips an image. `held_out` items, chosen by the seed alone, are in no epoch: `apart`, in
    their drawn order. With `shards`, the number of the file that each item lies in, an epoch goes through the
    files in a drawn order, `window` of them at a time, and shuffles within each window. Raises ConfigError.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int,
        mirror: bool = False,
        held_out: int = 0,
        shards: Tensor | None = None,
        window: int = 0,
    ) -> None:
        if not 0 <= held_out < count:
            raise ConfigError(f"held out {held_out} of {count} images; hold out fewer than all, or 0")
        if window < 0:
            raise ConfigError(f"a window of {window} shards is below 0; give 0 to shuffle the whole set")
        self.count = count
        self.seed = seed
        self.apart = torch.randperm(count, generator=generator_for(seed, "held out"))[:held_out]
        kept = torch.ones(count, dtype=torch.bool)
        kept[self.apart] = False
        self.kept = kept.nonzero()[:, 0]  # [K], rising
        self.all_places = torch.cat([self.kept, self.kept + count]) if mirror else self.kept
        self.shards = shards if window else None
        self.window = window
        self._epochs: dict[int, Tensor] = {}

    @property
    def epoch_size(self) -> int:
        """Return the number of places in an epoch."""
        return len(self.all_places)

    def places(self, position: int, size: int) -> Tensor:
        """Return int64 [size]: the places number `position` to `position + size - 1` of the stream."""
        pieces = []
        while size > 0:
            epoch, start = divmod(position, self.epoch_size)
            piece = self.epoch(epoch)[start : start + size]
            pieces.append(piece)
            position, size = position + len(piece), size - len(piece)
        return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int64)

    def epoch(self, number: int) -> Tensor:
        """Return an epoch's places, keeping the last two that were asked for."""
        found = self._epochs.get(number)
        if found is None:
            found = self.drawn(number)
            self._epochs = dict([*self._epochs.items(), (number, found)][-2:])
        return found

    def drawn(self, epoch: int) -> Tensor:
        """Draw an epoch's places."""
        rng = generator_for(self.seed, "feed", epoch)
        shuffled = self.all_places[torch.randperm(self.epoch_size, generator=rng)]
        if self.shards is None:
            return shuffled
        turns = torch.randperm(int(self.shards.max()) + 1, generator=rng)  # when each shard has its turn
        windows = turns[self.shards[shuffled % self.count]] // self.window
        return shuffled[windows.argsort(stable=True)]

"""The order in which training sees images: an infinite sequence, a pure function of the seed and the position."""

import torch
from torch import Tensor

from polyinr_core.errors import ConfigError
from polyinr_core.runtime.rng import generator_for


class InfiniteSampler:
    """Indices of an infinite sequence of images: 0 to count - 1, plus `count` where the image is mirrored.

    Every epoch holds every image once (with `mirror`, once as it is and once mirrored), in an order drawn from the seed
    and the epoch's number. So a run resumes at a position, without any state of the sampler.

    Args:
        count: Images of the dataset.
        seed: Of the order and of the choice of held-out images.
        mirror: Show mirrored images too.
        held_out: Images, chosen by the seed alone, that are in no epoch.
        shards: The number of the file that each image lies in, int64 [count].
        window: Shuffle within so many shards at a time, 0 for the whole set: for disks with slow random access.

    Raises:
        ConfigError.
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
            raise ConfigError(f"cannot hold out {held_out} of {count} images; hold out fewer than all, or 0")
        if window < 0:
            raise ConfigError(f"a window of {window} shards is below 0; give 0 to shuffle the whole set")
        self.count = count
        self.seed = seed
        self.held_out = torch.randperm(count, generator=generator_for(seed, "held out"))[:held_out]  # in drawn order
        kept = torch.ones(count, dtype=torch.bool)
        kept[self.held_out] = False
        self.kept = kept.nonzero()[:, 0]  # [K], rising
        self.epoch_indices = torch.cat([self.kept, self.kept + count]) if mirror else self.kept
        self.shards = shards if window else None
        self.window = window
        self._epochs: dict[int, Tensor] = {}

    @property
    def epoch_size(self) -> int:
        """Number of indices of an epoch."""
        return len(self.epoch_indices)

    def indices(self, position: int, size: int) -> Tensor:
        """Return int64 [size]: the indices at `position` to `position + size - 1` of the sequence."""
        pieces = []
        while size > 0:
            epoch, start = divmod(position, self.epoch_size)
            piece = self.epoch(epoch)[start : start + size]
            pieces.append(piece)
            position, size = position + len(piece), size - len(piece)
        return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int64)

    def epoch(self, number: int) -> Tensor:
        """Return an epoch's indices; the last two epochs that were asked for are cached."""
        indices = self._epochs.get(number)
        if indices is None:
            indices = self.shuffle(number)
            self._epochs = dict([*self._epochs.items(), (number, indices)][-2:])
        return indices

    def shuffle(self, epoch: int) -> Tensor:
        """Draw an epoch's order."""
        rng = generator_for(self.seed, "feed", epoch)
        shuffled = self.epoch_indices[torch.randperm(self.epoch_size, generator=rng)]
        if self.shards is None:
            return shuffled
        order = torch.randperm(int(self.shards.max()) + 1, generator=rng)  # of the shards
        windows = order[self.shards[shuffled % self.count]] // self.window
        return shuffled[windows.argsort(stable=True)]

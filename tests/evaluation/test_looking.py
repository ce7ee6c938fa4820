"""One pass over pictures: batches, made ahead, shared by ranks."""

import torch

from polyinr_core.evaluation.looking import rebatched


def test_batches_are_cut_anew() -> None:
    parts = [torch.arange(0, 5), torch.arange(5, 6), torch.arange(6, 17)]
    batches = list(rebatched(parts, 4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 1]
    assert torch.equal(torch.cat(batches), torch.arange(17))

"""Tests of polyinr_core/data/pool.py beyond what `prepare` shows: how items are put together."""

import numpy as np

from polyinr_core.data.pool import CHUNK_BYTES, in_chunks


def test_items_go_together_in_order_up_to_a_number() -> None:
    assert list(in_chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(in_chunks([], 3)) == []


def test_large_items_go_in_smaller_company() -> None:
    half, array = bytes(CHUNK_BYTES // 2), np.zeros(CHUNK_BYTES, np.uint8)
    assert [len(chunk) for chunk in in_chunks([half] * 5, 32)] == [2, 2, 1]
    assert [len(chunk) for chunk in in_chunks([array, array, half], 32)] == [1, 1, 1]

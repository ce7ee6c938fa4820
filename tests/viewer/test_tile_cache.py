"""The cache holds what was used last, up to its bytes."""

from polyinr_core.viewer.worker import TileCache


def test_what_was_used_longest_ago_goes_first() -> None:
    cache: TileCache[str] = TileCache(10)
    cache.put("a", b"aaaa")
    cache.put("b", b"bbbb")
    assert cache.get("a") == b"aaaa"
    cache.put("c", b"cccc")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"aaaa", None, b"cccc")
    assert (cache.size, len(cache)) == (8, 2)


def test_what_is_put_again_counts_once() -> None:
    cache: TileCache[str] = TileCache(10)
    cache.put("a", b"aaaa")
    cache.put("a", b"aaaaaa")
    assert (cache.size, len(cache)) == (6, 1)


def test_what_is_larger_than_all_is_not_kept() -> None:
    cache: TileCache[str] = TileCache(10)
    cache.put("b", b"bbbb")
    cache.put("a", b"a" * 11)
    assert (cache.size, cache.get("a"), cache.get("b")) == (4, None, b"bbbb")

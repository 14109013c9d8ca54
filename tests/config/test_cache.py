"""The cache while Valkey is away."""

from config.cache import ForgivingRedisCache


def test_a_cache_that_is_away_holds_nothing_and_stops_nobody(tmp_path):
    cache = ForgivingRedisCache(f"unix://{tmp_path}/nobody.sock", {})
    cache.set("key", 1)
    assert cache.get("key", "default") == "default"
    assert cache.add("lock", True) is True
    assert cache.delete("key") is False


def test_a_cache_that_is_there_holds(settings):
    cache = ForgivingRedisCache(settings.REDIS_URL, {})
    assert cache.add("key", 1) is True
    assert cache.add("key", 2) is False
    assert cache.get("key") == 1
    assert cache.delete("key") is True

"""Data sets: found on disk, fetched or drawn, then kept in the cache."""

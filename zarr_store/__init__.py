"""The only place that knows paths, chunks, shards, status, ids and provenance of a study."""

"""Pictures to learn from: sources, preparation, the archive, the feed of training batches."""

"""Model files: ours, and the released pickles read without being run."""

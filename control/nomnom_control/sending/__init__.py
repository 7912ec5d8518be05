"""Records sent to a running pipeline: files, examples and a demonstration stream."""

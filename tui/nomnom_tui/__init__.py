"""The terminal app of nomnom: displays what control reads and triggers its operations."""

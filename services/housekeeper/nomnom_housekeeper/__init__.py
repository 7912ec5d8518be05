"""The housekeeper: moves what is too old, and keeps the tables small. One acts at a time."""

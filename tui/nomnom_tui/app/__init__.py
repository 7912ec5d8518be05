"""The application: screens and keys, operations, refreshing, and the selected environment."""

"""The command line of nomnom, and the entry point that opens the terminal app."""

"""nomnom's terminal app: draws what control says, asks control to act."""

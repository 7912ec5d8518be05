"""Everything an operator does, without a screen."""

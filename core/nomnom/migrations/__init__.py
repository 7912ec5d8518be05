"""The fixed tables of nomnom, as SQL files applied in the order of their numbers."""

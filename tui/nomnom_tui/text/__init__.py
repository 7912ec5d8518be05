"""Text: styles, themes, numbers and rates."""

"""How text looks: styles, themes, numbers and rates."""

"""How values, states and names are presented: the same in the command line, the app and the page.

Nothing here draws. A surface gets text and meanings from this package and adds its own colours and layout; the page
gets them as TypeScript: ``python -m nomnom.presentation``.
"""

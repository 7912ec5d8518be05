"""Print the page's words: ``python -m nomnom.presentation > services/dashboard/web/src/generated/words.ts``."""

import sys

from nomnom.presentation.typescript import words

sys.stdout.write(words())

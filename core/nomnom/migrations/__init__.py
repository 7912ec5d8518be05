"""The migrations of nomnom's own tables, applied in numerical order. Applied files must never change."""

"""An operator's session with one running pipeline: its connections, what can be read there and what can be changed."""

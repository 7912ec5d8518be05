"""An operator's session with a running pipeline: connections, inspection and changes."""

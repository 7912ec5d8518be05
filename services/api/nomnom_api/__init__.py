"""The ingest API: accepts records over HTTP and publishes them to JetStream."""

"""The ingest API: records in over HTTP, acknowledged once they are in JetStream."""

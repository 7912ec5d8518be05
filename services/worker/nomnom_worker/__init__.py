"""The worker: consumes messages in batches and writes them to PostgreSQL, one transaction per batch."""

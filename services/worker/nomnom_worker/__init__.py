"""The worker: takes messages from the stream in batches and writes them to PostgreSQL, one transaction a batch."""

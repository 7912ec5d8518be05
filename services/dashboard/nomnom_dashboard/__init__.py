"""The dashboard: a read-only query API over PostgreSQL and JetStream, and the page that shows it."""

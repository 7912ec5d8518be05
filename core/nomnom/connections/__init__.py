"""Connections to NATS and PostgreSQL, shared by the services and by control."""

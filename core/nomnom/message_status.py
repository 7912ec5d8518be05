"""The SQL of ``message_status``: one row a message, written by the workers, read by everything that asks."""

FIND = """
SELECT message_id, entity_type, status, received_at, processed_at, retry_count, error_message, superseded, replays
FROM message_status
WHERE message_id = $1
"""

"""The SQL of ``message_status``: one row a message, written by the workers, read by everything that asks.

A row describes one replay generation of its message: ``replays`` is 0 as accepted and n after the n-th replay. A
delivery may change the row of its own generation until that is final (while it is ``processing`` or ``failed``), and
the row of an earlier generation; a completed row never changes again. A statement returns only what it has changed.

The writing statements take arrays of one length, with distinct ids in ascending order: several workers then lock rows
in one order.
"""

FIND = """
SELECT message_id, entity_type, status, received_at, processed_at, retry_count, error_message, superseded, replays
FROM message_status
WHERE message_id = $1
"""

_GIVEN = "unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::integer[])"
_UNANSWERED = """
kept.status <> 'completed'
    AND (kept.replays < excluded.replays OR (kept.replays = excluded.replays AND kept.status <> 'dlq'))
"""

CLAIM = f"""
INSERT INTO message_status AS kept (message_id, entity_type, received_at, replays, status, processed_at)
SELECT message_id, entity_type, received_at, replays, 'completed', statement_timestamp()
FROM {_GIVEN} AS given (message_id, entity_type, received_at, replays)
ON CONFLICT (message_id) DO UPDATE SET
    entity_type = excluded.entity_type, received_at = excluded.received_at, status = excluded.status,
    processed_at = excluded.processed_at, error_message = NULL, superseded = false, replays = excluded.replays,
    retry_count = CASE WHEN kept.replays < excluded.replays THEN 0 ELSE kept.retry_count END
WHERE {_UNANSWERED}
RETURNING message_id
"""  # noqa: S608 (parts of this module, no values)
"""Take messages as completed, in the transaction that writes their rows. Ids, entities, received_at, replays."""

FAIL = f"""
INSERT INTO message_status AS kept
    (message_id, entity_type, received_at, replays, error_message, status, processed_at, retry_count)
SELECT message_id, entity_type, received_at, replays, error_message, 'failed', statement_timestamp(), 1
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::integer[], $5::text[])
    AS given (message_id, entity_type, received_at, replays, error_message)
ON CONFLICT (message_id) DO UPDATE SET
    entity_type = excluded.entity_type, received_at = excluded.received_at, status = excluded.status,
    processed_at = excluded.processed_at, error_message = excluded.error_message, superseded = false,
    replays = excluded.replays,
    retry_count = CASE WHEN kept.replays < excluded.replays THEN 1 ELSE least(kept.retry_count + 1, $6::integer) END
WHERE {_UNANSWERED}
RETURNING message_id, retry_count
"""  # noqa: S608 (parts of this module, no values)
"""Record a failed attempt each; the count stops at the number of attempts there are. As CLAIM, then errors, maximum."""

MARK = f"""
INSERT INTO message_status AS kept (message_id, entity_type, received_at, replays, status, processed_at)
SELECT message_id, entity_type, received_at, replays, 'processing', statement_timestamp()
FROM {_GIVEN} AS given (message_id, entity_type, received_at, replays)
ON CONFLICT (message_id) DO UPDATE SET
    entity_type = excluded.entity_type, received_at = excluded.received_at, status = excluded.status,
    processed_at = excluded.processed_at, superseded = false, replays = excluded.replays,
    retry_count = CASE WHEN kept.replays < excluded.replays THEN 0 ELSE kept.retry_count END
WHERE {_UNANSWERED}
RETURNING message_id
"""  # noqa: S608 (parts of this module, no values)
"""Say, before it is tried, that a message is being tried. As CLAIM."""

PRIOR = """
SELECT message_id, status, replays, retry_count,
       status = 'processing' AND processed_at > pg_postmaster_start_time() AS marked
FROM message_status
WHERE message_id = ANY ($1::uuid[])
"""
"""What is known of messages that come again. A mark from before PostgreSQL's own start is explained by its outage."""

DEAD_LETTER = """
UPDATE message_status AS kept
SET status = 'dlq', processed_at = statement_timestamp(), error_message = given.error_message
FROM unnest($1::uuid[], $2::integer[], $3::text[]) AS given (message_id, replays, error_message)
WHERE kept.message_id = given.message_id AND kept.replays = given.replays AND kept.status IN ('processing', 'failed')
"""
"""Set the status of messages whose dead letters are stored. Ids, replays, errors."""

SUPERSEDE = """
UPDATE message_status SET superseded = true, error_message = $2 WHERE message_id = ANY ($1::uuid[])
"""
"""Say of completed messages that they changed nothing, and why."""

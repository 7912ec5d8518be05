"""The SQL of ``message_status``: one row per message, written by the workers, read by everyone else.

A row describes one replay generation of its message: ``replays`` is 0 as accepted and n after the n-th replay. A
delivery may change the row of its own generation until that is final (while it is ``processing`` or ``failed``), and
the row of an earlier generation; a completed row never changes again. A statement returns only what it has changed.

The writing statements take arrays of one length, with distinct ids in ascending order: several workers then lock rows
in one order. Each reading statement has a bounded cost, whatever the size of the table.
"""

_COLUMNS = "message_id, entity_type, status, received_at, processed_at, retry_count, error_message, superseded, replays"

FIND = f"SELECT {_COLUMNS} FROM message_status WHERE message_id = $1"  # noqa: S608 (parts of this module, no values)

# The inner part walks one index for a bounded number of rows; the outer part filters what it found.
_SCANNED = """
    SELECT {columns} FROM message_status
    WHERE (received_at, message_id) < ($1, $2) AND received_at >= $3 {indexed}
    ORDER BY received_at DESC, message_id DESC
"""
_PAGE = """
SELECT * FROM ({scanned} LIMIT $4) AS scanned
WHERE ($5::text IS NULL OR entity_type = $5) AND ($6::text IS NULL OR status = $6)
  AND ($7::text IS NULL OR strpos(lower(error_message), lower($7)) > 0)
ORDER BY received_at DESC, message_id DESC
LIMIT $8
"""
UNFINISHED = ("processing", "failed", "dlq")
"""The statuses that an index of their own leads to, if a statement names them as literals."""
_INDEXED = {None: ""} | {status: f"AND status = '{status}'" for status in UNFINISHED}

PAGE = {
    status: _PAGE.format(scanned=_SCANNED.format(columns=_COLUMNS, indexed=indexed))
    for status, indexed in _INDEXED.items()
}
"""Newest first, by a status that has an index or None: before ($1, $2), not before $3, scanning $4 rows; entity $5,
status $6, error text $7; limit $8."""
EDGE = {
    status: _SCANNED.format(columns="received_at, message_id", indexed=indexed) + "OFFSET $4 - 1 LIMIT 1"
    for status, indexed in _INDEXED.items()
}
"""The last of the $4 rows that PAGE scans, if there are as many."""

WITH_PREFIX = f"""
SELECT {_COLUMNS} FROM message_status WHERE message_id >= $1 AND message_id <= $2 ORDER BY message_id LIMIT $3
"""  # noqa: S608 (parts of this module, no values)
"""Ids from $1 to $2."""

REPLAYS = "SELECT message_id, status, replays FROM message_status WHERE message_id = ANY($1::uuid[])"

HOURS = """
SELECT date_trunc('hour', received_at, 'UTC') AS hour, status, count(*) AS messages,
       count(*) FILTER (WHERE superseded) AS superseded
FROM message_status
WHERE received_at >= $1
GROUP BY 1, 2
ORDER BY 1, 2
"""

# A bucket is ten seconds; a latency step is a factor of 1.1, so a percentile read from the steps is within 5 %.
FLOW = """
SELECT floor(date_part('epoch', processed_at) / 10)::bigint * 10 AS bucket,
       status,
       floor(ln(greatest(date_part('epoch', processed_at - received_at), 0.001)) / ln(1.1::float8))::integer AS step,
       count(*) AS messages
FROM message_status
WHERE processed_at >= $1 AND processed_at < $2
GROUP BY bucket, status, step
"""

ARRIVALS = """
SELECT floor(date_part('epoch', received_at) / 10)::bigint * 10 AS bucket, count(*) AS messages
FROM message_status
WHERE received_at >= $1 AND received_at < $2
GROUP BY bucket
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

UNMARK = """
UPDATE message_status SET status = 'failed', error_message = $2
WHERE message_id = ANY ($1::uuid[]) AND status = 'processing'
"""
"""Take back the mark of messages that were not tried after all, and say why."""

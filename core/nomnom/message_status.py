"""The SQL of ``message_status``: one row per message, written by the workers, read by everyone else.

A row describes one replay generation of its message: ``replays`` is 0 as accepted and n after the n-th replay. A
delivery may change the row of its own generation until that is final (while it is ``processing`` or ``failed``), and
the row of an earlier generation; a completed row never changes again. A statement returns only what it has changed.

The table is partitioned by ``received_at``: a row is identified by message ID and ``received_at``, which a message
keeps (a message with a key, that of its first copy: :mod:`nomnom_worker.copies`). Statements on many rows take the
bounds of ``received_at``, so that PostgreSQL reads few partitions.

The writing statements take arrays of one length, with distinct ids in ascending order: several workers then lock rows
in one order. Each reading statement has a bounded cost, whatever the size of the table.
"""

_COLUMNS = "message_id, entity_type, status, received_at, processed_at, retry_count, error_message, superseded, replays"

FIND = f"""
SELECT {_COLUMNS} FROM message_status WHERE message_id = $1 AND received_at >= $2 AND received_at < $3
"""  # noqa: S608 (parts of this module, no values)
"""The row of a message received from $2 to $3."""

FIND_KEY = "SELECT digest, received_at FROM nomnom_keys WHERE message_id = $1"
"""The content of a message with an Idempotency-Key, and the received_at of its row."""

FIND_USES = """
SELECT key.message_id, key.digest, key.received_at, kept.status
FROM unnest($1::uuid[], $2::uuid[]) AS given (first, last)
JOIN nomnom_keys AS key ON key.message_id = given.first
LEFT JOIN LATERAL (
    SELECT status FROM message_status
    WHERE message_id BETWEEN given.first AND given.last AND received_at = key.received_at
    ORDER BY status IN ('deleted', 'purged', 'expired') DESC
    LIMIT 1
) AS kept ON true
"""
"""What Idempotency-Keys were used for, and what became of that: of a segment, from its first to its last message, that
one was removed if any was.
"""

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
INDEXED = ("processing", "failed", "dlq", "deleted", "purged", "expired")
"""All statuses but completed: an index leads to them, if a statement names them as literals."""
_INDEXED = {None: ""} | {status: f"AND status = '{status}'" for status in INDEXED}

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

REPLAYS = "SELECT message_id, status, replays FROM message_status WHERE message_id = ANY ($1::uuid[])"

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

PROCESSED = """
SELECT count(*) FILTER (WHERE status NOT IN ('processing', 'failed')) AS messages FROM message_status
WHERE processed_at >= clock_timestamp() - make_interval(secs => $1::float8 + $2::float8)
  AND processed_at < clock_timestamp() - make_interval(secs => $2::float8)
"""
"""How many messages left the stream in $1 seconds, the last of which was $2 seconds ago: its transaction has ended."""

PROCESSED_SECONDS = """
SELECT floor(date_part('epoch', processed_at))::bigint AS second,
       count(*) FILTER (WHERE status NOT IN ('processing', 'failed')) AS messages
FROM message_status
WHERE processed_at >= clock_timestamp() - make_interval(secs => $1)
GROUP BY second
"""
"""How many messages left the stream in each of the last $1 seconds."""

ARRIVALS = """
SELECT floor(date_part('epoch', received_at) / 10)::bigint * 10 AS bucket, count(*) AS messages
FROM message_status
WHERE received_at >= $1 AND received_at < $2
GROUP BY bucket
"""

_GIVEN_COLUMNS = "message_id, entity_type, received_at, replays, stream_position"
_GIVEN = f"""
unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[]) AS given ({_GIVEN_COLUMNS})
"""
# A message that was purged while a worker held it is delivered nevertheless.
_UNANSWERED = """
kept.status <> 'completed' AND (
    kept.replays < excluded.replays
    OR (kept.replays = excluded.replays AND kept.status IN ('processing', 'failed', 'purged'))
)
"""
_PURGED = "kept.replays = excluded.replays AND kept.status = 'purged'"

CLAIM = f"""
INSERT INTO message_status AS kept ({_GIVEN_COLUMNS}, status, processed_at)
SELECT {_GIVEN_COLUMNS}, 'completed', statement_timestamp()
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[])
    AS given (ids, entity_type, received_at, replays, stream_position)
CROSS JOIN LATERAL unnest(string_to_array(given.ids, ',')::uuid[]) AS one (message_id)
ON CONFLICT (message_id, received_at) DO UPDATE SET
    entity_type = excluded.entity_type, status = excluded.status,
    processed_at = excluded.processed_at, error_message = NULL, superseded = false, replays = excluded.replays,
    stream_position = greatest(kept.stream_position, excluded.stream_position),
    retry_count = CASE WHEN kept.replays < excluded.replays THEN 0 ELSE kept.retry_count END
WHERE {_UNANSWERED}
RETURNING message_id
"""  # noqa: S608 (parts of this module, no values)
"""Take messages as completed, in the transaction that writes their rows. Ids, entities, received_at, replays,
positions. Messages that differ in their IDs alone can be given together, with commas between their IDs.
"""
CLAIM_COLUMNS = 5

FAIL = f"""
INSERT INTO message_status AS kept ({_GIVEN_COLUMNS}, error_message, status, processed_at, retry_count)
SELECT {_GIVEN_COLUMNS}, error_message, 'failed', statement_timestamp(), 1
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[], $6::text[])
    AS given ({_GIVEN_COLUMNS}, error_message)
ON CONFLICT (message_id, received_at) DO UPDATE SET
    entity_type = excluded.entity_type,
    status = CASE WHEN {_PURGED} THEN kept.status ELSE excluded.status END,
    processed_at = CASE WHEN {_PURGED} THEN kept.processed_at ELSE excluded.processed_at END,
    error_message = excluded.error_message, superseded = false,
    replays = excluded.replays, stream_position = greatest(kept.stream_position, excluded.stream_position),
    retry_count = CASE WHEN kept.replays < excluded.replays THEN 1 ELSE least(kept.retry_count + 1, $7::integer) END
WHERE {_UNANSWERED}
RETURNING message_id, retry_count
"""  # noqa: S608 (parts of this module, no values)
"""Record a failed attempt each; the count stops at the number of attempts there are. A message that was purged
meanwhile remains so: there is no next attempt. As CLAIM, then errors, maximum.
"""

MARK = f"""
INSERT INTO message_status AS kept ({_GIVEN_COLUMNS}, status, processed_at)
SELECT {_GIVEN_COLUMNS}, 'processing', statement_timestamp()
FROM {_GIVEN}
ON CONFLICT (message_id, received_at) DO UPDATE SET
    entity_type = excluded.entity_type, status = excluded.status,
    processed_at = excluded.processed_at, superseded = false, replays = excluded.replays,
    stream_position = greatest(kept.stream_position, excluded.stream_position),
    retry_count = CASE WHEN kept.replays < excluded.replays THEN 0 ELSE kept.retry_count END
WHERE {_UNANSWERED}
RETURNING message_id
"""  # noqa: S608 (parts of this module, no values)
"""Say, before it is tried, that a message is being tried. As CLAIM."""

PRIOR = """
SELECT message_id, status, replays, retry_count,
       status = 'processing' AND processed_at > pg_postmaster_start_time()
           AND processed_at < clock_timestamp() - make_interval(secs => $4) AS marked
FROM message_status
WHERE message_id = ANY ($1::uuid[]) AND received_at BETWEEN $2 AND $3
"""
"""What is known of messages that come again, received from $2 to $3. A mark from before PostgreSQL's own start is
explained by its outage, and one of the last $4 seconds by a worker that is processing the message now.
"""

DEAD_LETTER = """
UPDATE message_status AS kept
SET status = 'dlq', processed_at = statement_timestamp(), error_message = given.error_message
FROM unnest($1::uuid[], $2::timestamptz[], $3::integer[], $4::text[])
    AS given (message_id, received_at, replays, error_message)
WHERE kept.message_id = given.message_id AND kept.received_at = given.received_at AND kept.replays = given.replays
    AND kept.status IN ('processing', 'failed', 'purged') AND kept.received_at BETWEEN $5 AND $6
RETURNING kept.message_id
"""
"""Set the status of messages whose dead letters are stored; returns their ids. Ids, received_at, replays, errors,
bounds.
"""

EXPIRE = f"""
INSERT INTO message_status AS kept ({_GIVEN_COLUMNS}, error_message, status, processed_at)
SELECT {_GIVEN_COLUMNS}, error_message, 'dlq', statement_timestamp()
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[], $6::text[])
    AS given ({_GIVEN_COLUMNS}, error_message)
ON CONFLICT (message_id, received_at) DO UPDATE SET
    entity_type = excluded.entity_type, status = excluded.status, processed_at = excluded.processed_at,
    error_message = excluded.error_message, superseded = false, replays = excluded.replays,
    stream_position = greatest(kept.stream_position, excluded.stream_position),
    retry_count = CASE WHEN kept.replays < excluded.replays THEN 0 ELSE kept.retry_count END
WHERE {_UNANSWERED}
RETURNING message_id
"""  # noqa: S608 (parts of this module, no values)
"""Set the status of messages that no worker has processed in time, whose dead letters are stored. As CLAIM, then
errors.
"""

STANDING = """
SELECT message_id, received_at, status, replays, retry_count, error_message
FROM message_status
WHERE message_id = ANY ($1::uuid[]) AND received_at BETWEEN $2 AND $3
"""
"""The rows of messages received from $2 to $3."""

REMOVE = f"""
INSERT INTO message_status AS kept ({_GIVEN_COLUMNS}, processed_at, status)
SELECT {_GIVEN_COLUMNS}, removed_at, $7
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[], $6::timestamptz[])
    AS given ({_GIVEN_COLUMNS}, removed_at)
ON CONFLICT (message_id, received_at) DO UPDATE SET
    status = excluded.status, processed_at = excluded.processed_at, replays = excluded.replays,
    stream_position = greatest(kept.stream_position, excluded.stream_position)
WHERE kept.status <> 'completed'
    AND (kept.replays < excluded.replays OR (kept.replays = excluded.replays AND kept.status = ANY ($8::text[])))
    AND (kept.stream_position = excluded.stream_position OR 0 IN (kept.stream_position, excluded.stream_position))
"""  # noqa: S608 (parts of this module, no values)
"""Set the status of messages that were removed (deleted, purged or expired: $7), whether or not a worker has written
their rows. A row of the same replay generation changes from the statuses $8 (REMOVABLE_DEAD_LETTER, REMOVABLE_PENDING);
a completed one never does, nor that of a later generation or of a new life under the same key. The error stays: why it
was a dead letter. As CLAIM, then times.
"""
REMOVABLE_PENDING = ("processing", "failed")
"""The statuses from which a message in the stream may be removed: with ``dlq``, its dead letter remains."""
REMOVABLE_DEAD_LETTER = (*REMOVABLE_PENDING, "dlq")
"""The statuses from which a dead letter may be removed: a worker stores it before it sets the status."""

REMOVE_ATTEMPTED = """
UPDATE message_status SET status = 'purged', processed_at = $3
WHERE stream_position BETWEEN $1 AND $2 AND stream_position > 0 AND replays = 0 AND status IN ('processing', 'failed')
"""
"""Set the status of messages whose originals, at the positions from $1 to $2, were purged after a failed attempt."""

RETURN = """
UPDATE message_status SET status = $2, processed_at = statement_timestamp()
WHERE (message_id, received_at) IN (
    SELECT message_id, received_at FROM message_status WHERE processed_at = $1 AND status = 'purged' LIMIT $3
)
RETURNING message_id
"""
"""Take back up to $3 removals of the time $1 that did not happen: the status is $2 again."""

RESTORE = """
UPDATE message_status AS kept SET status = 'dlq', processed_at = statement_timestamp()
FROM unnest($1::uuid[], $2::timestamptz[], $3::integer[]) AS given (message_id, received_at, replays)
WHERE kept.message_id = given.message_id AND kept.received_at = given.received_at AND kept.replays = given.replays
    AND kept.status IN ('deleted', 'purged', 'expired')
"""
"""Set the status of messages whose dead letters exist again. Ids, received_at, replays."""

SUPERSEDE = """
UPDATE message_status SET superseded = true, error_message = $2
WHERE message_id = ANY ($1::uuid[]) AND received_at BETWEEN $3 AND $4
"""
"""Record that completed messages changed nothing, and why. Ids, reason, bounds."""

RECORD_REPEATS = """
INSERT INTO nomnom_sequences (position, message_id, kind)
SELECT given.position, given.message_id, 'repeat'
FROM unnest($1::bigint[], $2::uuid[], $3::timestamptz[]) AS given (position, message_id, received_at)
WHERE NOT EXISTS (
    SELECT FROM message_status AS kept
    WHERE kept.message_id = given.message_id AND kept.received_at = given.received_at
        AND kept.stream_position = given.position
)
ON CONFLICT (position) DO NOTHING
"""
"""Record copies of messages that were processed before, unless they are what was processed: a redelivery."""

ADD_KEYS = """
INSERT INTO nomnom_keys (message_id, digest, received_at, stream_position)
SELECT message_id, digest, received_at, stream_position
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bigint[])
    AS given (message_id, digest, received_at, stream_position)
ON CONFLICT (message_id) DO NOTHING
RETURNING stream_position
"""
"""Record the contents that Idempotency-Keys stand for; returns the positions of those that are new."""

FIND_KEYS = (
    "SELECT message_id, digest, received_at, stream_position FROM nomnom_keys WHERE message_id = ANY ($1::uuid[])"
)

REVIVE = """
WITH removed AS (
    SELECT kept.message_id, kept.received_at, kept.stream_position AS before, kept.status AS ended,
           given.stream_position
    FROM message_status AS kept
    JOIN unnest($1::uuid[], $2::timestamptz[], $3::bigint[]) AS given (message_id, received_at, stream_position)
      ON kept.message_id = given.message_id AND kept.received_at = given.received_at
    WHERE kept.status IN ('deleted', 'purged', 'expired')
    FOR UPDATE OF kept
)
UPDATE message_status AS kept
SET status = 'failed', processed_at = statement_timestamp(), retry_count = 0, error_message = NULL, replays = 0,
    stream_position = removed.stream_position
FROM removed
WHERE kept.message_id = removed.message_id AND kept.received_at = removed.received_at
RETURNING kept.message_id, removed.before, removed.ended
"""
"""Let messages that were removed begin a new life: with the position of their new copies."""

RENEW_KEYS = """
UPDATE nomnom_keys AS kept SET digest = given.digest, stream_position = given.stream_position
FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS given (message_id, digest, stream_position)
WHERE kept.message_id = given.message_id
"""

UNMARK = """
UPDATE message_status SET status = 'failed', processed_at = statement_timestamp(), error_message = $2
WHERE message_id = ANY ($1::uuid[]) AND status = 'processing' AND received_at BETWEEN $3 AND $4
"""
"""Remove the mark of messages that were not attempted after all. Ids, reason, bounds."""

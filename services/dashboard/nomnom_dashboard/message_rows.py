"""The dashboard's SQL over ``message_status``: each statement's cost is bounded whatever the table holds."""

from __future__ import annotations

COUNTED = 10_000
"""Rows are counted one by one up to this number; beyond it the planner's estimate answers."""
SEARCHED = 50_000
"""How many rows one request looks at for a filter that no index answers."""

COUNTS = """
SELECT 'total' AS what, count(*) AS rows FROM (SELECT FROM message_status LIMIT $1) AS few
UNION ALL
SELECT 'failed', count(*) FROM (SELECT FROM message_status WHERE status = 'failed' LIMIT $1) AS few
UNION ALL
SELECT 'dlq', count(*) FROM (SELECT FROM message_status WHERE status = 'dlq' LIMIT $1) AS few
UNION ALL
SELECT 'processing', count(*) FROM (SELECT FROM message_status WHERE status = 'processing' LIMIT $1) AS few
"""

ESTIMATES = {
    "total": "EXPLAIN (FORMAT JSON) SELECT FROM message_status",
    "failed": "EXPLAIN (FORMAT JSON) SELECT FROM message_status WHERE status = 'failed'",
    "dlq": "EXPLAIN (FORMAT JSON) SELECT FROM message_status WHERE status = 'dlq'",
    "processing": "EXPLAIN (FORMAT JSON) SELECT FROM message_status WHERE status = 'processing'",
}

_COLUMNS = "message_id, entity_type, status, received_at, processed_at, retry_count, error_message, superseded, replays"

NEWEST = f"SELECT {_COLUMNS} FROM message_status ORDER BY received_at DESC, message_id DESC LIMIT $1"  # noqa: S608

# The inner part walks one index for a bounded number of rows; the outer part filters what it found.
_LOOKED = """
    SELECT {columns} FROM message_status
    WHERE (received_at, message_id) < ($1, $2) AND received_at >= $3 {known}
    ORDER BY received_at DESC, message_id DESC
"""
_PAGE = """
SELECT * FROM ({looked} LIMIT $4) AS looked
WHERE ($5::text IS NULL OR entity_type = $5) AND ($6::text IS NULL OR status = $6)
  AND ($7::text IS NULL OR strpos(lower(error_message), lower($7)) > 0)
ORDER BY received_at DESC, message_id DESC
LIMIT $8
"""
_KNOWN = {None: ""} | {status: f"AND status = '{status}'" for status in ("failed", "dlq", "processing")}

PAGE = {status: _PAGE.format(looked=_LOOKED.format(columns=_COLUMNS, known=known)) for status, known in _KNOWN.items()}
"""Newest first, by a status that has an index or None: before ($1, $2), not before $3, looking at $4 rows; entity $5,
status $6, error text $7; limit $8."""
EDGE = {
    status: _LOOKED.format(columns="received_at, message_id", known=known) + "OFFSET $4 - 1 LIMIT 1"
    for status, known in _KNOWN.items()
}
"""The last of the $4 rows that PAGE looks at, if there are as many."""

BY_ID_PREFIX = f"""
SELECT {_COLUMNS} FROM message_status WHERE message_id >= $1 AND message_id <= $2 ORDER BY message_id LIMIT $3
"""  # noqa: S608

HISTORY = """
SELECT at, actor, action, result FROM nomnom_audit WHERE message_id = $1 ORDER BY id LIMIT 100
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

# A worker has one connection, which bears its name.
WORKERS = """
SELECT count(*) AS workers
FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'nomnom-worker%'
"""

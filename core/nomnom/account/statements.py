"""The SQL of the account. Positions are inclusive bounds; the index on ``stream_position`` is partial, so statements
repeat its predicate.
"""

from nomnom.positions import BLOCK_BITS, SEQUENCE_BITS

_INCARNATION = SEQUENCE_BITS - BLOCK_BITS
"""Bits of a block's number within its incarnation."""

ACCOUNTS = """
SELECT incarnation, stream, created, base, last, since, verified_at
FROM nomnom_account JOIN nomnom_streams USING (incarnation)
WHERE stream = $1
ORDER BY incarnation
"""

BEGIN = """
INSERT INTO nomnom_account (incarnation, base, last)
SELECT $1, CASE WHEN EXISTS (
    SELECT FROM nomnom_account JOIN nomnom_streams USING (incarnation) WHERE stream = $2
) THEN 0 ELSE $3 END, $3
ON CONFLICT (incarnation) DO NOTHING
"""
"""Begin the account of an incarnation of the stream $2 that has assigned $3 sequences. All of them are outside of the
account, unless there is one already: then the stream was created again since.
"""

OPEN_BLOCKS = f"""
SELECT given.block FROM generate_series($1::bigint >> {BLOCK_BITS}, $2::bigint >> {BLOCK_BITS}) AS given (block)
WHERE NOT EXISTS (SELECT FROM nomnom_account_blocks AS closed WHERE closed.block = given.block)
ORDER BY given.block
"""  # noqa: S608 (constants of nomnom.positions)
"""The blocks with positions from $1 to $2 that are not closed."""

COUNT = """
SELECT given.low,
       (
           SELECT count(*) FROM message_status
           WHERE stream_position > 0 AND stream_position BETWEEN given.low AND given.high
       ) AS messages,
       (SELECT count(*) FROM nomnom_sequences WHERE position BETWEEN given.low AND given.high) AS copies
FROM unnest($1::bigint[], $2::bigint[]) AS given (low, high)
ORDER BY given.low
"""

EXPLAINED = """
SELECT count(*) FROM (
    SELECT stream_position FROM message_status
    WHERE stream_position > 0 AND stream_position BETWEEN $1 AND $2
    UNION
    SELECT position FROM nomnom_sequences WHERE position BETWEEN $1 AND $2
) AS explained
"""
"""How many positions from $1 to $2 have a row in either table."""

INCOMPLETE = """
SELECT counted.position, sized.size - counted.messages AS missing
FROM (
    SELECT stream_position AS position, count(*) AS messages
    FROM message_status
    WHERE stream_position > 0 AND stream_position BETWEEN $1 AND $2
    GROUP BY stream_position
) AS counted
CROSS JOIN LATERAL (
    SELECT nomnom_segment_size(message_id) AS size FROM message_status
    WHERE stream_position > 0 AND stream_position = counted.position
    LIMIT 1
) AS sized
WHERE sized.size > counted.messages
  AND NOT EXISTS (SELECT FROM nomnom_sequences WHERE nomnom_sequences.position = counted.position)
ORDER BY counted.position
"""
"""The positions of segments, from $1 to $2, that have fewer rows than messages, and how many are missing. A segment
that was a repeat has only the rows that began a new life.
"""

GAPS = """
SELECT before + 1 AS low, position - 1 AS high FROM (
    SELECT position, lag(position, 1, $1::bigint - 1) OVER (ORDER BY position) AS before FROM (
        SELECT stream_position AS position FROM message_status
        WHERE stream_position > 0 AND stream_position BETWEEN $1::bigint AND $2::bigint
        GROUP BY stream_position
        UNION ALL
        SELECT position FROM nomnom_sequences WHERE position BETWEEN $1::bigint AND $2::bigint
        UNION ALL
        SELECT $2::bigint + 1
    ) AS explained
) AS ordered
WHERE position > before + 1
ORDER BY position
"""
"""The ranges from $1 to $2 that no row of either table has."""

RETIRED = """
SELECT coalesce(sum(messages), 0)::bigint AS messages, coalesce(sum(copies), 0)::bigint AS copies,
       coalesce(sum(doubles), 0)::bigint AS doubles
FROM nomnom_account_retired WHERE block BETWEEN $1 AND $2
"""

CLOSE = """
INSERT INTO nomnom_account_blocks (block, messages, copies, doubles, lost) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (block) DO UPDATE SET
    messages = excluded.messages, copies = excluded.copies, doubles = excluded.doubles, lost = excluded.lost,
    verified_at = excluded.verified_at
"""

OLDEST_BLOCKS = """
SELECT closed.block, closed.messages - coalesce(retired.messages, 0) AS messages,
       closed.copies - coalesce(retired.copies, 0) AS copies
FROM (SELECT * FROM nomnom_account_blocks WHERE verified_at < $2 ORDER BY verified_at LIMIT $1) AS closed
LEFT JOIN LATERAL (
    SELECT sum(gone.messages)::bigint AS messages, sum(gone.copies)::bigint AS copies
    FROM nomnom_account_retired AS gone WHERE gone.block = closed.block
) AS retired ON true
ORDER BY closed.block
"""

VERIFIED = "UPDATE nomnom_account_blocks SET verified_at = clock_timestamp() WHERE block = ANY ($1::bigint[])"

OPEN = "DELETE FROM nomnom_account_blocks WHERE block = ANY ($1::bigint[])"

NEWEST_VERIFIED = """
UPDATE nomnom_account SET verified_at = clock_timestamp(), last = greatest(last, $2) WHERE incarnation = $1
"""

DEAD_LETTERS_VERIFIED = "UPDATE nomnom_account SET dead_letters_verified_at = clock_timestamp()"

DEAD_LETTERS_DUE = """
SELECT NOT EXISTS (SELECT FROM nomnom_account WHERE dead_letters_verified_at > $1)
"""

LEGACY = """
SELECT EXISTS (
    SELECT FROM message_status WHERE processed_at >= $1 AND stream_position = 0 AND replays = 0
)
"""
"""Whether a worker of an earlier version, which knows no positions, has processed a message since $1."""

FORGET_BLOCKS = f"DELETE FROM nomnom_account_blocks WHERE block >> {_INCARNATION} = $1"  # noqa: S608
FORGET_UNEXPLAINED = "DELETE FROM nomnom_unexplained WHERE low >> 48 = $1"
RESTART = "UPDATE nomnom_account SET base = $2, last = $2, since = clock_timestamp() WHERE incarnation = $1"

UNEXPLAINED = """
SELECT id, kind, low, high, messages, message_id, noticed_at FROM nomnom_unexplained
WHERE resolved_at IS NULL AND high >= $1 AND low <= $2
ORDER BY id
LIMIT $3
"""

NOTE = """
INSERT INTO nomnom_unexplained (kind, low, high, messages, message_id)
SELECT $1::text, $2::bigint, $3::bigint, $4::bigint, $5::uuid
WHERE NOT EXISTS (
    SELECT FROM nomnom_unexplained
    WHERE resolved_at IS NULL AND kind = $1::text AND low = $2::bigint AND message_id IS NOT DISTINCT FROM $5::uuid
)
"""

NAME = """
UPDATE nomnom_unexplained SET message_id = $2
WHERE resolved_at IS NULL AND kind IN ('sequence', 'rows') AND low = $1 AND high = $1
RETURNING id
"""
"""The message at a position that is lost, which its dead letter knows."""

RESOLVE = "UPDATE nomnom_unexplained SET resolved_at = clock_timestamp() WHERE id = $1"

DEAD = "SELECT message_id, replays, stream_position FROM message_status WHERE status = 'dlq' AND stream_position > 0"

STILL_DEAD = """
SELECT message_id, replays, stream_position FROM message_status
WHERE message_id = ANY ($1::uuid[]) AND status = 'dlq' AND stream_position > 0
"""

UNFINISHED = """
SELECT message_id, stream_position FROM message_status
WHERE status <> 'completed' AND status IN ('processing', 'failed') AND stream_position > 0
  AND processed_at < clock_timestamp() - make_interval(secs => $1)
ORDER BY processed_at
LIMIT $2
"""
"""Messages that are to be tried again, $1 seconds after their last attempt, those that have waited longest first."""

STILL_UNFINISHED = """
SELECT message_id, stream_position FROM message_status
WHERE message_id = ANY ($1::uuid[]) AND status IN ('processing', 'failed') AND stream_position > 0
"""

KNOWN = "SELECT DISTINCT message_id FROM message_status WHERE message_id = ANY ($1::uuid[])"

OTHERS = """
SELECT status, count(*) AS messages FROM message_status
WHERE status <> 'completed' AND stream_position BETWEEN $1 AND $2
GROUP BY status
"""
"""All messages but the completed ones: an index of few rows leads to them."""

SUPERSEDED = """
SELECT count(*) FROM message_status
WHERE superseded AND status = 'completed' AND stream_position BETWEEN $1 AND $2
"""

COPIES = """
SELECT kind, count(*) AS copies FROM nomnom_sequences WHERE position BETWEEN $1 AND $2 GROUP BY kind
"""

BLOCKS = """
SELECT coalesce(sum(messages), 0)::bigint AS messages, coalesce(sum(doubles), 0)::bigint AS doubles,
       min(verified_at) AS verified_at
FROM nomnom_account_blocks WHERE block BETWEEN $1 AND $2
"""

RETIRED_CLOSED = """
SELECT coalesce(sum(gone.messages), 0)::bigint AS messages, coalesce(sum(gone.doubles), 0)::bigint AS doubles
FROM nomnom_account_retired AS gone JOIN nomnom_account_blocks USING (block)
WHERE block BETWEEN $1 AND $2
"""

FIRST_RECEIVED = """
SELECT stream_position FROM message_status WHERE received_at >= $1 AND stream_position > 0
ORDER BY received_at LIMIT 1
"""

IS_RETIRED = "SELECT EXISTS (SELECT FROM nomnom_account_retired WHERE block = $1)"

FIRST_RETIRED = "SELECT min(block) FROM nomnom_account_retired WHERE high > $1"

WAITING_REPLAYS = """
SELECT count(DISTINCT replayed.detail ->> 'stream_sequence') FROM nomnom_audit AS replayed
WHERE replayed.at >= $1 AND replayed.action = 'replay' AND replayed.result = 'replayed'
  AND (replayed.detail ->> 'stream_sequence')::bigint BETWEEN $3 AND $4
  AND NOT EXISTS (
      SELECT FROM nomnom_sequences
      WHERE position = ($2::bigint << 48 | (replayed.detail ->> 'stream_sequence')::bigint)
  )
"""
"""Replays since $1 whose copies, with the sequences from $3 to $4 of incarnation $2, wait in the stream."""

OPEN_UNEXPLAINED = """
SELECT coalesce(sum(messages), 0)::bigint AS messages, min(noticed_at) AS since FROM nomnom_unexplained
WHERE resolved_at IS NULL
"""

OLDEST_VERIFIED = """
SELECT least(
    (SELECT min(verified_at) FROM nomnom_account_blocks),
    (
        SELECT min(least(coalesce(verified_at, '-infinity'), coalesce(dead_letters_verified_at, '-infinity')))
        FROM nomnom_account
        WHERE incarnation = (SELECT max(incarnation) FROM nomnom_streams WHERE stream = $1)
    )
)
"""

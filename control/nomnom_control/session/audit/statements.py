"""The SQL of ``nomnom_audit``."""

CHECK = "SELECT event FROM nomnom_audit LIMIT 0"

IDENTITY = """
SELECT control.system_identifier::text || '-' || base.oid::text
FROM pg_control_system() AS control, pg_database AS base
WHERE base.datname = current_database()
"""

INSERT = """
INSERT INTO nomnom_audit (event, run, at, actor, action, message_id, entity, sequence, result, undoes, detail)
SELECT event, run, at, actor, action, message_id, entity, sequence, result, undoes, detail
FROM unnest(
    $1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::uuid[], $7::text[], $8::bigint[],
    $9::text[], $10::uuid[], $11::jsonb[]
) AS given (event, run, at, actor, action, message_id, entity, sequence, result, undoes, detail)
ON CONFLICT (event, at) DO NOTHING
RETURNING event
"""

READ = """
SELECT id, event, run, at, actor, action, message_id, entity, sequence, result, undoes, detail
FROM nomnom_audit
WHERE ($1::bigint IS NULL OR id < $1)
  AND ($2::uuid IS NULL OR message_id = $2)
  AND ($3::uuid IS NULL OR run = $3)
  AND ($4::text IS NULL OR action = $4)
  AND ($5::text IS NULL OR actor = $5)
  AND ($6::text IS NULL OR entity = $6)
  AND ($7::timestamptz IS NULL OR at >= $7)
  AND ($8::timestamptz IS NULL OR at < $8)
ORDER BY id DESC
LIMIT $9
"""

REPLAYS_TO_UNDO = """
SELECT replayed.id, replayed.event, replayed.run, replayed.at, replayed.actor, replayed.action, replayed.message_id,
       replayed.entity, replayed.sequence, replayed.result, replayed.undoes, replayed.detail
FROM nomnom_audit AS replayed
WHERE replayed.action = 'replay' AND replayed.result = 'replayed'
  AND ($1::uuid IS NULL OR replayed.message_id = $1)
  AND ($2::uuid IS NULL OR replayed.run = $2)
  AND replayed.id > $3
  AND NOT EXISTS (
      SELECT FROM nomnom_audit AS undone
      WHERE undone.undoes = replayed.event AND undone.result IN ('undone', 'uncertain', 'too late')
  )
ORDER BY replayed.id
LIMIT $4
"""

-- What happened when: throughput and latency over time are read by it, a bucket of seconds at a time. Its values only
-- grow, so it is filled at its right edge (measured: within 3 % of a batch's time).
CREATE INDEX message_status_processed ON message_status (processed_at);

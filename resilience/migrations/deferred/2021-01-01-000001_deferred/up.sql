-- The ledger of deferred calls. What is committed in here ends as `done` or `parked`, whatever dies.
CREATE TABLE deferred (
    -- Also the call's idempotency key.
    id             UUID        PRIMARY KEY,
    -- A call has one handler. Events are to come: for whoever listens, in order per aggregate.
    mode           TEXT        NOT NULL DEFAULT 'call',
    kind           TEXT        NOT NULL,
    aggregate      TEXT,
    sequence       BIGINT,
    -- As it was given: jsonb would refuse some strings and round some numbers.
    payload        JSON        NOT NULL,
    -- What travels with it: trace, request id.
    context        JSON        NOT NULL DEFAULT '{}',
    -- pending, sent, running, done, parked.
    state          TEXT        NOT NULL,
    -- How often it was begun, and how often that counted against its limit.
    attempts       INTEGER     NOT NULL DEFAULT 0,
    strikes        INTEGER     NOT NULL DEFAULT 0,
    not_before     TIMESTAMPTZ NOT NULL,
    -- Who may act on it: a message or a handler with another token is stale.
    token          UUID,
    -- Until when its publisher or its handler may stay silent.
    lease_until    TIMESTAMPTZ,
    -- Whoever deferred it is carrying it out itself, as long as the lease lasts.
    held           BOOLEAN     NOT NULL DEFAULT false,
    -- It is, or was when it was interrupted, the only one in its process: what ended that was it.
    alone          BOOLEAN     NOT NULL DEFAULT false,
    first_error    TEXT,
    first_error_at TIMESTAMPTZ,
    last_error     TEXT,
    last_error_at  TIMESTAMPTZ,
    created_at     TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    sent_at        TIMESTAMPTZ,
    started_at     TIMESTAMPTZ,
    ended_at       TIMESTAMPTZ,
    discarded_at   TIMESTAMPTZ,
    -- Few and short: PostgreSQL reads them anew for each statement, for more than an insert costs.
    CONSTRAINT deferred_state CHECK (CASE
        WHEN state IN ('pending', 'sent') THEN ended_at IS NULL AND NOT held
        WHEN state IN ('done', 'parked') THEN ended_at IS NOT NULL AND NOT held
        ELSE state = 'running' AND ended_at IS NULL
             AND token IS NOT NULL AND lease_until IS NOT NULL END),
    CONSTRAINT deferred_mode CHECK (mode = 'call'
        OR (mode = 'event' AND aggregate IS NOT NULL AND sequence IS NOT NULL))
);

-- What ended costs nothing: each question is about rows of few states.
CREATE INDEX deferred_due ON deferred (kind, not_before) WHERE state = 'pending';
CREATE INDEX deferred_sent ON deferred (kind, sent_at) WHERE state = 'sent';
CREATE INDEX deferred_running ON deferred (lease_until) WHERE state = 'running';
CREATE INDEX deferred_parked ON deferred (kind, ended_at) WHERE state = 'parked';
CREATE INDEX deferred_done ON deferred (ended_at) WHERE state = 'done';
CREATE UNIQUE INDEX deferred_sequence ON deferred (aggregate, sequence) WHERE mode = 'event';

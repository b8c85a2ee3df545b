-- The journal of sagas. What is begun in here ends as `committed` or `compensated`, whatever dies.
CREATE TABLE saga (
    -- Minted by whoever begins it: under one id there is one saga.
    id           UUID        PRIMARY KEY,
    kind         TEXT        NOT NULL,
    -- Of those with the same key, one runs at a time.
    key          TEXT,
    -- As it was given: jsonb would refuse some strings and round some numbers.
    input        JSON        NOT NULL,
    -- What travels with it: trace, request id.
    context      JSON        NOT NULL DEFAULT '{}',
    -- running, compensating, stuck, committed, compensated.
    state        TEXT        NOT NULL,
    -- Behind its pivot: there is no way back.
    forward      BOOLEAN     NOT NULL DEFAULT false,
    -- Who may write: whoever takes over raises it, and what others write is refused from then on.
    fence        BIGINT      NOT NULL DEFAULT 1,
    -- Until when whoever runs it may stay silent; none when the ledger of deferred calls has it.
    lease_until  TIMESTAMPTZ,
    output       JSON,
    -- Why it is or was compensated, or is stuck, and which system was the cause.
    reason       TEXT,
    dependency   TEXT,
    begun_at     TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    ended_at     TIMESTAMPTZ,
    CONSTRAINT saga_state CHECK (CASE
        WHEN state IN ('committed', 'compensated') THEN ended_at IS NOT NULL AND lease_until IS NULL
        WHEN state = 'compensating' THEN ended_at IS NULL AND NOT forward
        ELSE state IN ('running', 'stuck') AND ended_at IS NULL END)
);

-- What ended costs nothing: each question is about sagas of few states.
CREATE INDEX saga_lease ON saga (lease_until) WHERE lease_until IS NOT NULL;
CREATE UNIQUE INDEX saga_key ON saga (kind, key) WHERE key IS NOT NULL AND ended_at IS NULL;
CREATE INDEX saga_open ON saga (kind, begun_at) WHERE ended_at IS NULL;
CREATE INDEX saga_ended ON saga (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE saga_step (
    saga     UUID        NOT NULL REFERENCES saga ON DELETE CASCADE,
    number   INTEGER     NOT NULL,
    name     TEXT        NOT NULL,
    -- step, read, pivot, forward.
    role     TEXT        NOT NULL,
    -- intent, done, refused, unknown; undo_intent, undone, undo_deferred.
    state    TEXT        NOT NULL,
    input    JSON        NOT NULL,
    output   JSON,
    error    TEXT,
    begun_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    ended_at TIMESTAMPTZ,
    undone_at TIMESTAMPTZ,
    PRIMARY KEY (saga, number)
);

-- What a client's Idempotency-Key stands for. A row under a lease is being worked on; one with an
-- answer repeats it; one that is `undoing` waits until what it began is taken back.
CREATE TABLE idempotency (
    method      TEXT        NOT NULL,
    path        TEXT        NOT NULL,
    key         TEXT        NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint TEXT        NOT NULL,
    state       TEXT        NOT NULL CHECK (state IN ('running', 'undoing', 'done')),
    -- Minted once for the attempt, and kept by whoever takes it over after a crash.
    attempt     UUID        NOT NULL,
    -- Fences the holder: who finds another one here has been taken over and must stop.
    token       UUID        NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL,
    -- The system that keeps the attempt from being undone.
    waits_for   TEXT,
    answer      JSONB,
    created_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (method, path, key),
    CHECK ((state = 'done') = (answer IS NOT NULL))
);
CREATE INDEX idempotency_created_at ON idempotency (created_at);

-- Ids whose effect was undone. A call that arrives after its undo finds it here and is refused.
CREATE TABLE tombstones (
    id         UUID        PRIMARY KEY,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE warranty (
    id            BIGSERIAL   PRIMARY KEY,
    comment       TEXT        NULL CHECK (length(comment) BETWEEN 1 AND 1024),
    item_uid      UUID        NOT NULL UNIQUE,
    status        TEXT        NOT NULL
        CHECK (status IN ('ON_WARRANTY', 'USE_WARRANTY', 'REMOVED_FROM_WARRANTY')),
    warranty_date TIMESTAMPTZ NOT NULL
);

-- Closes that came with a name, their Idempotency-Key. The generic memory of keys ends after 30
-- days; that a close was undone holds for good.
CREATE TABLE closes (
    item_uid  UUID    NOT NULL REFERENCES warranty (item_uid),
    name      TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
    -- It is the one that closed the warranty; a repeat, or one that came late, is not.
    effective BOOLEAN NOT NULL,
    -- The warranty had been claimed on when this close came: whoever re-opens it may not know.
    used      BOOLEAN NOT NULL DEFAULT FALSE,
    -- It was undone: a tombstone for this one close.
    reopened  BOOLEAN NOT NULL,
    PRIMARY KEY (item_uid, name)
);
-- One close at most is in force.
CREATE UNIQUE INDEX closes_in_force ON closes (item_uid) WHERE effective AND NOT reopened;

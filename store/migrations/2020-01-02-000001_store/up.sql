CREATE TABLE users (
    id       SERIAL PRIMARY KEY,
    name     TEXT   NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 255),
    user_uid UUID   NOT NULL UNIQUE
);

-- Every claim that was accepted, decided at once or later. Kept for good.
CREATE TABLE claims (
    id            BIGSERIAL   PRIMARY KEY,
    claim_uid     UUID        NOT NULL UNIQUE,
    order_uid     UUID        NOT NULL,
    user_uid      UUID        NOT NULL REFERENCES users (user_uid),
    status        TEXT        NOT NULL CHECK (status IN ('QUEUED', 'DECIDED', 'FAILED')),
    reason        TEXT        NOT NULL CHECK (length(reason) BETWEEN 1 AND 1024),
    decision      TEXT        CHECK (decision IN ('RETURN', 'FIXING', 'REFUSED')),
    warranty_date TIMESTAMPTZ,
    requested_at  TIMESTAMPTZ NOT NULL,
    decided_at    TIMESTAMPTZ,
    CHECK ((status = 'DECIDED') = (decision IS NOT NULL))
);
CREATE INDEX claims_order_uid ON claims (order_uid, requested_at DESC, id DESC);

-- Refunds that are complete: repeating one calls nobody.
CREATE TABLE refunds (
    order_uid   UUID        PRIMARY KEY,
    user_uid    UUID        NOT NULL REFERENCES users (user_uid),
    refunded_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

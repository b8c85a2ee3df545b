CREATE TABLE items (
    id              SERIAL  PRIMARY KEY,
    available_count INTEGER NOT NULL CHECK (available_count >= 0),
    model           TEXT    NOT NULL CHECK (length(model) BETWEEN 1 AND 255),
    size            TEXT    NOT NULL CHECK (size ~ '^[A-Z0-9]{1,8}$'),
    UNIQUE (model, size)
);

CREATE TABLE order_item (
    id             BIGSERIAL PRIMARY KEY,
    canceled       BOOLEAN   NOT NULL DEFAULT FALSE,
    order_item_uid UUID      NOT NULL UNIQUE,
    order_uid      UUID      NOT NULL,
    item_id        INTEGER   NOT NULL REFERENCES items (id)
);
CREATE INDEX order_item_item_id ON order_item (item_id);

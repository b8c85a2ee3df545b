//! Its tables.

diesel::table! {
    users (id) {
        id -> Int4,
        name -> Text,
        user_uid -> Uuid,
    }
}

diesel::table! {
    claims (id) {
        id -> Int8,
        claim_uid -> Uuid,
        order_uid -> Uuid,
        user_uid -> Uuid,
        status -> Text,
        reason -> Text,
        decision -> Nullable<Text>,
        warranty_date -> Nullable<Timestamptz>,
        requested_at -> Timestamptz,
        decided_at -> Nullable<Timestamptz>,
        failure -> Nullable<Text>,
    }
}

diesel::table! {
    refund_attempts (attempt_uid) {
        attempt_uid -> Uuid,
        order_uid -> Uuid,
        user_uid -> Uuid,
        begun_at -> Timestamptz,
    }
}

diesel::table! {
    refunds (order_uid) {
        order_uid -> Uuid,
        user_uid -> Uuid,
        refunded_at -> Timestamptz,
    }
}

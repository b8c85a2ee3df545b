//! Its tables.

diesel::table! {
    warranty (id) {
        id -> Int8,
        comment -> Nullable<Text>,
        item_uid -> Uuid,
        status -> Text,
        warranty_date -> Timestamptz,
    }
}

diesel::table! {
    closes (item_uid, name) {
        item_uid -> Uuid,
        name -> Text,
        effective -> Bool,
        used -> Bool,
        reopened -> Bool,
    }
}

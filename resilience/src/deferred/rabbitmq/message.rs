//! What RabbitMQ carries: who is meant, and under which token. The work itself is in the ledger.

use lapin::BasicProperties;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One message. Fields may be added; those that are there stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) id: Uuid,
    pub(super) token: Uuid,
}

/// Written to the broker's disk before it is confirmed.
const PERSISTENT: u8 = 2;

impl Message {
    pub(super) fn body(self) -> Vec<u8> {
        format!(r#"{{"id":"{}","token":"{}"}}"#, self.id, self.token).into_bytes()
    }

    pub(super) fn properties(self) -> BasicProperties {
        BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_message_id(self.id.to_string().into())
    }

    /// Nothing when it isn't one of ours.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_a_message_or_none(bytes in vec(any::<u8>(), 0..200), at in 0_usize..100) {
            prop_assert_eq!(Message::read(&bytes), None);
            let message = Message { id: Uuid::new_v4(), token: Uuid::new_v4() };
            let mut broken = message.body();
            let at = at % broken.len();
            broken[at] = bytes.first().copied().unwrap_or_default();
            // One that still is a message is about something else, or unchanged.
            if let Some(read) = Message::read(&broken) {
                prop_assert_eq!(read == message, broken.eq_ignore_ascii_case(&message.body()));
            }
        }
    }

    #[test]
    fn message_is_read_as_it_was_written_and_by_older_releases_too() {
        let message = Message { id: Uuid::new_v4(), token: Uuid::new_v4() };
        assert_eq!(Message::read(&message.body()), Some(message));
        let later = format!(r#"{{"id":"{}","token":"{}","more":[1]}}"#, message.id, message.token);
        assert_eq!(Message::read(later.as_bytes()), Some(message));
        for garbage in ["", "{}", "[]", "\u{0}", r#"{"id":"x","token":"y"}"#] {
            assert_eq!(Message::read(garbage.as_bytes()), None, "{garbage}");
        }
    }
}

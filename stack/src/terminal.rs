//! What the launcher prints.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use crate::names::{Name, Service};
use crate::parts::Part;

/// The demonstration user, and an item, of the seeded data.
const USER: &str = "6d2cb5a0-943c-4b96-9aa6-89eac7bdfd2b";
const ITEM: &str = r#"{"model":"Lego 8070","size":"M"}"#;

/// One line to standard output. That nobody reads it any more is no reason to fail: `println!`
/// would panic, and leave the parts running.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// What runs, where, and what to try.
///
/// `without` says why there is no private RabbitMQ, if there is none.
pub(crate) fn welcome(parts: &[&Part], without: Option<&str>, took: Duration) -> String {
    let mut text = String::from("\n");
    for part in parts {
        // The password stays out of a screen that is shown to others; `status` has it.
        let (at, note) = match part.name() {
            Name::Postgres | Name::Rabbitmq => {
                (format!("127.0.0.1:{}", part.port()), "  (address: status)")
            }
            _ => (part.url(), ""),
        };
        let _ = writeln!(text, "  {:<10} {at:<24} {}{note}", part.name(), part.log().display());
    }
    if !parts.iter().any(|part| part.name() == Name::Postgres) {
        let _ = writeln!(text, "  {:<10} absent: the databases are those given", Name::Postgres);
    }
    if let Some(why) = without {
        let _ = writeln!(text, "  {:<10} absent: {why}", Name::Rabbitmq);
    }
    let store = parts.iter().find(|part| part.name() == Service::Store.name());
    let store = store.map(|part| part.url()).unwrap_or_default();
    let _ = write!(
        text,
        "
The store is ready after {:.1} s. Try (Alex buys a Lego set):

  curl {store}/manage/health
  curl -i {store}/api/v1/store/{USER}/purchase -H 'Content-Type: application/json' -d '{ITEM}'
  curl {store}/api/v1/store/{USER}/orders

From another terminal: cargo run -- stop warehouse, start warehouse, status, --help.
Ctrl-C ends everything.",
        took.as_secs_f64()
    );
    text
}

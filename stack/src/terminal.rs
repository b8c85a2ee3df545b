//! What the launcher prints.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::names::{Name, Service};
use crate::parts::Part;
use crate::state::Paths;
use crate::tokens::Kind;

/// The demonstration user, and an item, of the seeded data.
const USER: &str = "6d2cb5a0-943c-4b96-9aa6-89eac7bdfd2b";
const ITEM: &str = r#"{"model":"Lego 8070","size":"M"}"#;

/// What any terminal has.
const WIDTH: usize = 80;

/// Under what a line says after its time.
const INDENT: &str = "        ";

/// One line to standard output. That nobody reads it any more is no reason to fail: `println!`
/// would panic, and leave the parts running.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// As [`say`]; where people read, in lines that fit any terminal.
pub(crate) fn say_folded(line: &str) {
    if io::stdout().is_terminal() { say(&folded(line)) } else { say(line) }
}

/// In lines of at most [`WIDTH`], all but the first indented: behind commas, or else at any space.
fn folded(line: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    let length = |text: &str| text.trim_end().chars().count();
    let fold = |text: &mut String, column: &mut usize, next: usize| {
        if *column + next > WIDTH && *column > INDENT.len() {
            text.truncate(text.trim_end().len());
            text.push('\n');
            text.push_str(INDENT);
            *column = INDENT.len();
        }
    };
    for piece in line.split_inclusive(", ") {
        if INDENT.len() + length(piece) <= WIDTH {
            fold(&mut text, &mut column, length(piece));
        }
        for word in piece.split_inclusive(' ') {
            fold(&mut text, &mut column, length(word));
            text.push_str(word);
            column += word.chars().count();
        }
    }
    text
}

/// What runs, where, and what to try.
///
/// `without` says why there is no private RabbitMQ, if there is none; `locked` where the tokens are, if
/// there are any.
pub(crate) fn welcome(
    parts: &[&Part],
    without: Option<&str>,
    locked: Option<&Paths>,
    took: Duration,
) -> String {
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
    let url = |service: Service| {
        let part = parts.iter().find(|part| part.name() == service.name());
        part.map(|part| part.url()).unwrap_or_default()
    };
    let store = url(Service::Store);
    let _ = writeln!(
        text,
        "
The store is ready after {:.1} s. Try (Alex buys a Lego set):

  curl {store}/manage/health
  curl -i {store}/api/v1/store/{USER}/purchase -H 'Content-Type: application/json' -d '{ITEM}'
  curl {store}/api/v1/store/{USER}/orders",
        took.as_secs_f64()
    );
    if let Some(paths) = locked {
        let [management, service] =
            [Kind::Management, Kind::Service].map(|kind| quoted(&kind.file(paths)));
        let order = url(Service::Order);
        let _ = writeln!(
            text,
            "  curl -H @{management} {store}/manage/access
  curl -H @{service} {order}/api/v1/orders/{USER}

It is locked: only Store's own routes, and health, take no token. The tokens are in these two files,
and end with the launcher."
        );
    }
    let _ = write!(
        text,
        "
From another terminal: cargo run -- stop warehouse, start warehouse, status, --help.
Ctrl-C ends everything."
    );
    text
}

/// For a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_folded_at_spaces_and_a_short_one_is_left_alone() {
        assert_eq!(folded("   8 s  bought 1"), "   8 s  bought 1");
        let long = format!("   8 s  {}waiting 7 | order frozen", "bought 12, ".repeat(20));
        let text = folded(&long);
        assert!(text.lines().count() > 3 && text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("        bought 12,")), "{text}");
        assert_eq!(text.replace("\n        ", " "), long);
        let sentence = "word ".repeat(40);
        assert!(folded(&sentence).lines().all(|line| line.len() <= WIDTH));
        // What can't be folded is not.
        assert_eq!(folded(&"x".repeat(100)), "x".repeat(100));
    }
}

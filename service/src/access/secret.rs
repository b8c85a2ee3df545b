//! Bearer tokens: read, compared, and never shown.

use std::fmt;

use http::HeaderValue;
use openssl::memcmp;
use sha2::{Digest as _, Sha256};

use crate::config::Reader;

/// Characters that a token has at least: what `openssl rand -hex 16` prints.
pub(crate) const SHORTEST: usize = 32;

/// Characters that a token has at most: it goes into a header.
const LONGEST: usize = 512;

/// Tokens that are valid at a time: one, or the old and the new one.
const MOST: usize = 2;

/// What a variable that holds tokens should be.
pub(crate) const LOOKS_LIKE: &str = "one or two tokens, comma-separated, each of 32 to 512 visible \
     ASCII characters, such as openssl rand -hex 32 prints";

/// Bearer tokens of one kind. All of them are valid; the first is the one to send.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tokens(Vec<Token>);

#[derive(Clone, PartialEq, Eq)]
struct Token {
    text: String,
    digest: [u8; 32],
}

impl Tokens {
    /// Those of a variable.
    pub(crate) fn read(reader: &mut Reader, variable: &str) -> Option<Self> {
        reader.optional(variable, LOOKS_LIKE, Self::parse)
    }

    /// Reads [what they look like](LOOKS_LIKE).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let tokens: Vec<_> = text.split(',').map(str::trim).collect();
        let fits = |token: &&str| {
            (SHORTEST..=LONGEST).contains(&token.len())
                && token.bytes().all(|b| b.is_ascii_graphic())
        };
        let usable = tokens.len() <= MOST && tokens.iter().all(fits);
        usable.then(|| Self(tokens.into_iter().map(Token::new).collect()))
    }

    /// Which of them this is, counted from 1.
    ///
    /// How long that takes tells nothing: digests are compared, which have one length, in constant
    /// time, and with every token, whichever it is.
    pub(crate) fn find(&self, presented: &str) -> Option<usize> {
        let digest = digest(presented);
        let numbered = self.0.iter().enumerate();
        numbered.fold(None, |found, (at, token)| {
            let same = memcmp::eq(&token.digest, &digest);
            found.or(same.then_some(at + 1))
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether one of them is among the others.
    pub(crate) fn overlap(&self, others: &Self) -> bool {
        self.0.iter().any(|token| others.find(&token.text).is_some())
    }

    /// `Authorization` of calls to other services, by the first of them.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.first()?)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The one to send.
    pub(crate) fn first(&self) -> Option<&str> {
        self.0.first().map(|token| token.text.as_str())
    }
}

impl Token {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), digest: digest(text) }
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old-old-old-old-old-old-old-old-";
    const NEW: &str = "new-new-new-new-new-new-new-new-";

    #[test]
    fn one_or_two_tokens_are_read_and_nothing_shorter_longer_or_stranger() {
        assert_eq!(Tokens::parse(OLD).unwrap().count(), 1);
        assert_eq!(Tokens::parse(&format!("{OLD}, {NEW}")).unwrap().count(), 2);
        let wrong = [
            String::new(),
            OLD[1..].to_owned(),
            OLD.repeat(17),
            format!("{OLD} {NEW}"),
            format!("{OLD},"),
            format!("{OLD},{NEW},{OLD}"),
            format!("{OLD},short"),
            format!("{OLD}\u{e4}"),
            format!("{OLD}\n{NEW}"),
        ];
        for wrong in wrong {
            assert!(Tokens::parse(&wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_is_the_whole_of_it_and_either_of_two() {
        let tokens = Tokens::parse(&format!("{OLD},{NEW}")).unwrap();
        assert_eq!((tokens.find(OLD), tokens.find(NEW)), (Some(1), Some(2)));
        let changed = |at: usize| {
            let mut bytes = NEW.as_bytes().to_vec();
            bytes[at] ^= 1;
            String::from_utf8(bytes).unwrap()
        };
        for at in 0..NEW.len() {
            assert_eq!(tokens.find(&changed(at)), None, "character {at} is looked at");
            assert_eq!(tokens.find(&NEW[..at]), None, "the first {at} are no token");
        }
        for wrong in [format!("{NEW}x"), format!("{OLD},{NEW}"), NEW.to_uppercase(), String::new()]
        {
            assert_eq!(tokens.find(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_first_is_sent_and_none_is_shown() {
        let tokens = Tokens::parse(&format!("{NEW},{OLD}")).unwrap();
        assert_eq!(tokens.authorization().unwrap(), format!("Bearer {NEW}"));
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }

    #[test]
    fn a_token_of_both_kinds_is_found() {
        let [both, other] =
            [format!("{OLD},{NEW}"), NEW.to_owned()].map(|t| Tokens::parse(&t).unwrap());
        assert!(both.overlap(&other) && other.overlap(&both));
        assert!(!other.overlap(&Tokens::parse(OLD).unwrap()));
    }
}

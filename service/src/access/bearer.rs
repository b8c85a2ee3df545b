//! What a request says of who sends it: `Authorization`, by RFC 6750 (2.1).

use http::header::{AUTHORIZATION, HeaderMap};

/// The bearer token of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearer<'a> {
    /// There is none: at most something of another scheme.
    Absent,
    /// There is one, and it can't be any.
    Malformed,
    /// Not looked at yet.
    Presented(&'a str),
}

impl<'a> Bearer<'a> {
    /// One header, its scheme in either case, one space or more, and visible ASCII characters. Of two
    /// headers none counts: whoever is in between may have looked at the other one.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        let value = match (sent.next(), sent.next()) {
            (None, _) => return Self::Absent,
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Self::Malformed,
        };
        let Ok(text) = value.to_str() else { return Self::Malformed };
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        if !scheme.eq_ignore_ascii_case("Bearer") {
            return Self::Absent;
        }
        let token = token.trim_start_matches(' ');
        let visible = token.bytes().all(|b| b.is_ascii_graphic());
        if token.is_empty() || !visible { Self::Malformed } else { Self::Presented(token) }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::super::secret::Tokens;
    use super::*;
    use crate::chance::cases;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let values = values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok());
        values.map(|value| (AUTHORIZATION, value)).collect()
    }

    #[test]
    fn a_bearer_token_is_read_as_the_rfc_has_it() {
        for good in ["Bearer abc", "bearer abc", "BEARER   abc"] {
            assert_eq!(
                Bearer::of(&headers(&[good.as_bytes()])),
                Bearer::Presented("abc"),
                "{good}"
            );
        }
        for none in [&b""[..], b"Basic YTpi", b"abc", b"Bearerabc", b"Bearer\tabc"] {
            let sent = headers(&[none]);
            assert!(matches!(Bearer::of(&sent), Bearer::Absent | Bearer::Malformed), "{none:?}");
        }
        for bad in [&b"Bearer"[..], b"Bearer ", b"Bearer a b", b"Bearer abc ", b"Bearer \xe4"] {
            assert_eq!(Bearer::of(&headers(&[bad])), Bearer::Malformed, "{bad:?}");
        }
        assert_eq!(Bearer::of(&HeaderMap::new()), Bearer::Absent);
        let twice = headers(&[b"Bearer abc", b"Bearer abc"]);
        assert_eq!(Bearer::of(&twice), Bearer::Malformed);
    }

    proptest! {
        #![proptest_config(cases(2_000))]

        #[test]
        fn no_bytes_but_the_token_are_accepted(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..3),
            scheme in "(?i)bearer|basic|[A-Za-z]{0,8}",
            near in prop::sample::subsequence(TOKEN.chars().collect::<Vec<_>>(), 0..TOKEN.len()),
            tail in "[ -~]{1,4}",
        ) {
            let tokens = Tokens::parse(TOKEN).unwrap();
            let near: String = near.into_iter().collect();
            let mut all: Vec<Vec<u8>> = values;
            all.push(format!("{scheme} {near}").into_bytes());
            all.push(format!("{scheme} {TOKEN}{tail}").into_bytes());
            for value in &all {
                let sent = headers(&[value]);
                if let Bearer::Presented(token) = Bearer::of(&sent) {
                    prop_assert_eq!(tokens.find(token), None);
                }
            }
            let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
            if let Bearer::Presented(token) = Bearer::of(&headers(&all)) {
                prop_assert_eq!(tokens.find(token), None);
            }
        }
    }
}

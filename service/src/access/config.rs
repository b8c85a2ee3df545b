//! Who is let in: the variables, and when a service refuses to start.

use std::net::IpAddr;

use crate::config::Reader;
use crate::identity::IdentityConfig;

use super::secret::{LOOKS_LIKE, Tokens};

/// Who calls a service's own routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Other services: with a service token, on every route.
    Services,
    /// Users: with an identity of theirs, where that is asked for.
    Users,
}

/// Who is let in.
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `SERVICE_TOKENS` | none | one or two bearer tokens, comma-separated: either is accepted from other services, the first is sent to them |
/// | `MANAGEMENT_TOKENS` | none | the same for `/manage/…`, but health, and `/metrics` |
/// | `ALLOW_OPEN` | `false` | start without tokens where others can connect |
///
/// For the service that users call, those of [`IdentityConfig`] too.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    pub(crate) callers: Callers,
    pub(crate) service: Option<Tokens>,
    pub(crate) management: Option<Tokens>,
    pub(crate) identity: Option<IdentityConfig>,
    /// Others can connect, and not all that should be locked is: somebody has allowed it.
    pub(crate) allowed_open: bool,
}

impl AccessConfig {
    /// Reads the variables of the table above, for a service that listens there.
    pub(crate) fn read(reader: &mut Reader, bind: IpAddr, callers: Callers) -> Self {
        let [service, management] =
            [SERVICE_TOKENS, MANAGEMENT_TOKENS].map(|name| (name, Tokens::read(reader, name)));
        let allow_open = reader.flag("ALLOW_OPEN", false);
        let exposed = !bind.to_canonical().is_loopback();
        let missing =
            [&service, &management].map(|(name, tokens)| tokens.is_none().then_some(*name));
        if exposed && !allow_open {
            for name in missing.into_iter().flatten() {
                if reader.is_given(name) {
                    // What is wrong with it was said.
                    continue;
                }
                reader.problem(format!(
                    "{name} is missing: others can connect to BIND {bind}, so it should be \
                     {LOOKS_LIKE}; ALLOW_OPEN=1 starts without"
                ));
            }
        }
        let (service, management) = (service.1, management.1);
        if let (Some(service), Some(management)) = (&service, &management)
            && service.overlap(management)
        {
            reader.problem(format!(
                "{SERVICE_TOKENS} and {MANAGEMENT_TOKENS} have a token in common, and should not"
            ));
        }
        let identity = match callers {
            Callers::Services => None,
            Callers::Users => IdentityConfig::read(reader),
        };
        let allowed_open = exposed && missing.iter().any(Option::is_some);
        Self { callers, service, management, identity, allowed_open }
    }
}

pub(crate) const SERVICE_TOKENS: &str = "SERVICE_TOKENS";
const MANAGEMENT_TOKENS: &str = "MANAGEMENT_TOKENS";

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "one-one-one-one-one-one-one-one-geheim";
    const TWO: &str = "two-two-two-two-two-two-two-two-geheim";

    fn read(bind: &str, variables: &[(&str, &str)]) -> Result<AccessConfig, String> {
        let owned = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let mut reader = Reader::from_variables(owned).unwrap();
        let config = AccessConfig::read(&mut reader, bind.parse().unwrap(), Callers::Services);
        reader.finish(Some(config)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_others_can_reach_does_not_start_without_tokens_of_both_kinds() {
        for bind in ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1"] {
            let error = read(bind, &[]).unwrap_err();
            for name in [SERVICE_TOKENS, MANAGEMENT_TOKENS] {
                assert!(error.contains(&format!("{name} is missing")), "{bind}: {error}");
            }
            assert!(error.contains("openssl rand") && error.contains("ALLOW_OPEN=1"), "{error}");
            for (given, missing) in
                [(SERVICE_TOKENS, MANAGEMENT_TOKENS), (MANAGEMENT_TOKENS, SERVICE_TOKENS)]
            {
                let error = read(bind, &[(given, ONE)]).unwrap_err();
                assert!(error.contains(&format!("{missing} is missing")), "{bind}: {error}");
                assert_eq!(error.lines().count(), 1, "{error}");
            }
            let both = [(SERVICE_TOKENS, ONE), (MANAGEMENT_TOKENS, TWO)];
            assert!(!read(bind, &both).unwrap().allowed_open, "{bind}");
        }
    }

    #[test]
    fn what_only_this_machine_can_reach_starts_open() {
        for bind in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(!read(bind, &[]).unwrap().allowed_open, "{bind}");
        }
    }

    #[test]
    fn being_open_can_be_allowed_and_is_known() {
        assert!(read("0.0.0.0", &[("ALLOW_OPEN", "1")]).unwrap().allowed_open);
        let some = [("ALLOW_OPEN", "1"), (SERVICE_TOKENS, ONE)];
        assert!(read("0.0.0.0", &some).unwrap().allowed_open);
        let all = [("ALLOW_OPEN", "1"), (SERVICE_TOKENS, ONE), (MANAGEMENT_TOKENS, TWO)];
        assert!(!read("0.0.0.0", &all).unwrap().allowed_open);
        assert!(!read("127.0.0.1", &[("ALLOW_OPEN", "1")]).unwrap().allowed_open);
        assert!(read("0.0.0.0", &[("ALLOW_OPEN", "perhaps")]).is_err());
    }

    #[test]
    fn a_wrong_token_is_named_once_and_not_repeated() {
        for bind in ["127.0.0.1", "0.0.0.0"] {
            for wrong in ["geheim", "geheim geheim geheim geheim geheim geheim"] {
                let tokens = [(SERVICE_TOKENS, ONE), (MANAGEMENT_TOKENS, wrong)];
                let error = read(bind, &tokens).unwrap_err();
                assert!(error.starts_with("MANAGEMENT_TOKENS should be one or two"), "{error}");
                assert!(!error.contains("geheim") && error.lines().count() == 1, "{error}");
            }
        }
    }

    #[test]
    fn a_service_token_is_no_management_token() {
        let error = read(
            "127.0.0.1",
            &[(SERVICE_TOKENS, &format!("{ONE},{TWO}")), (MANAGEMENT_TOKENS, TWO)],
        )
        .unwrap_err();
        assert!(error.contains("in common") && !error.contains("geheim"), "{error}");
    }
}

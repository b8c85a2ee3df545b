//! What Warranty needs to know.

use service::access::Callers;
use service::config::{BaseConfig, Reader};

/// How long a warranty lasts, in days of 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub u32);

/// The variables of [`BaseConfig`] (port 8180), and:
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `WARRANTY_PERIOD_DAYS` | 365 | days for which a claim is accepted, 1 to 36500 |
#[derive(Clone, Debug)]
pub struct Config {
    /// What every service needs.
    pub base: BaseConfig,
    /// For how long claims are accepted.
    pub period: Period,
}

impl Config {
    /// Reads all of it, so that all that is wrong is said at once.
    pub fn read(reader: &mut Reader) -> Option<Self> {
        let base =
            BaseConfig::read(reader, warranty_api::NAME, warranty_api::PORT, Callers::Services);
        let period = Period(reader.number("WARRANTY_PERIOD_DAYS", 365, 1..=36_500));
        Some(Self { base: base?, period })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(days: Option<&str>) -> Result<Period, String> {
        let url = ("DATABASE_URL".to_owned(), "postgres://localhost/d".to_owned());
        let days = days.map(|days| ("WARRANTY_PERIOD_DAYS".to_owned(), days.to_owned()));
        let mut reader = Reader::from_variables([url].into_iter().chain(days)).unwrap();
        let config = Config::read(&mut reader);
        reader.finish(config).map(|config| config.period).map_err(|error| error.to_string())
    }

    #[test]
    fn a_year_unless_something_else_is_said() {
        assert_eq!(read(None), Ok(Period(365)));
        assert_eq!(read(Some("1")), Ok(Period(1)));
        assert_eq!(read(Some("36500")), Ok(Period(36_500)));
    }

    #[test]
    fn a_period_out_of_bounds_is_refused_by_name() {
        for wrong in ["0", "36501", "-1", "a year"] {
            let error = read(Some(wrong)).unwrap_err();
            assert!(error.contains("WARRANTY_PERIOD_DAYS"), "{error}");
            assert!(error.contains("1 to 36500"), "{error}");
        }
    }
}

//! Configuration: environment variables, over an optional TOML file, over defaults.
//!
//! Everything is read before anything is bound, and every mistake is reported at once, each with
//! the variable's name and what it should look like.
//!
//! The file is named by `CONFIG_PATH`; its keys are the variables' names in lower case:
//!
//! ```toml
//! port = 8280
//! database_url = "postgres://warehouse@localhost/warehouse"
//! warranty_url = "http://127.0.0.1:8180"
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use url::Url;

use crate::access::{AccessConfig, Callers};
use crate::database_url::DatabaseUrl;
use crate::server::Limits;

/// What was wrong with the configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// Each thing that was wrong.
    pub fn problems(&self) -> &[String] {
        &self.0
    }
}

/// Reads settings one by one and collects what is wrong.
#[derive(Debug, Default)]
pub struct Reader {
    variables: BTreeMap<String, String>,
    /// Variables whose values are no text.
    unreadable: BTreeSet<String>,
    file: toml::Table,
    file_name: String,
    problems: Vec<String>,
}

impl Reader {
    /// Over this process's environment and the file named by `CONFIG_PATH`, if any.
    ///
    /// # Errors
    /// When the file can't be read or isn't TOML.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_os(std::env::vars_os())
    }

    /// One that can't be read is a mistake where it is asked for: taken for missing, a token would leave
    /// the door open.
    fn from_os(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut unreadable = BTreeSet::new();
        let readable = variables.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            if let Ok(value) = value.into_string() {
                return Some((name, value));
            }
            unreadable.insert(name);
            None
        });
        let mut reader = Self::from_variables(readable.collect::<Vec<_>>())?;
        reader.unreadable = unreadable;
        Ok(reader)
    }

    /// Over the variables given, `CONFIG_PATH` among them: for tests, and for the launcher.
    ///
    /// # Errors
    /// When the file can't be read or isn't TOML.
    pub fn from_variables(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let variables: BTreeMap<_, _> = variables.into_iter().collect();
        let mut reader = Self { variables, ..Self::default() };
        if let Some(path) = reader.variables.get("CONFIG_PATH").filter(|p| !p.is_empty()) {
            let wrong = |e: &dyn fmt::Display| {
                ConfigError(vec![format!("CONFIG_PATH: can't use the file {path}: {e}")])
            };
            let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
            reader.file_name = path.clone();
            reader.file = text.parse().map_err(|e: toml::de::Error| wrong(&e.message()))?;
        }
        Ok(reader)
    }

    /// A setting that may be missing.
    pub fn optional<T>(
        &mut self,
        name: &str,
        looks_like: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (text, origin) = self.text(name)?;
        let parsed = text.as_deref().and_then(parse);
        if parsed.is_none() {
            // The value may be a secret (a database's address holds a password): it stays out.
            self.problems.push(format!("{name}{origin} should be {looks_like}"));
        }
        parsed
    }

    /// A setting with a default.
    pub fn or<T>(
        &mut self,
        name: &str,
        default: T,
        looks_like: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        self.optional(name, looks_like, parse).unwrap_or(default)
    }

    /// A setting that must be there.
    pub fn required<T>(
        &mut self,
        name: &str,
        looks_like: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        if !self.is_given(name) {
            self.problems.push(format!("{name} is missing: it should be {looks_like}"));
            return None;
        }
        self.optional(name, looks_like, parse)
    }

    /// A whole number of milliseconds, at least one.
    pub fn millis(&mut self, name: &str, default: u64) -> Duration {
        let whole = "a whole number of milliseconds, from 1 to 600000";
        let millis =
            self.or(name, default, whole, |t| t.parse().ok().filter(|n| (1..=600_000).contains(n)));
        Duration::from_millis(millis)
    }

    /// A whole number within bounds.
    pub fn number(
        &mut self,
        name: &str,
        default: u32,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> u32 {
        let looks_like = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.or(name, default, &looks_like, |t| t.parse().ok().filter(|n| bounds.contains(n)))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: &str, default: bool) -> bool {
        self.or(name, default, "true or false", |t| match t {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    }

    /// The address of another service.
    pub fn service_url(&mut self, name: &str, default_port: u16) -> Url {
        let looks_like =
            format!("an http or https address such as http://127.0.0.1:{default_port}");
        self.optional(name, &looks_like, http_address).unwrap_or_else(|| {
            Url::parse(&format!("http://127.0.0.1:{default_port}")).expect("a constant address")
        })
    }

    /// Whether there is anything, right or wrong.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// Notes a rule that settings break together.
    pub fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    /// The end of reading.
    ///
    /// # Errors
    /// When anything was wrong.
    pub fn finish<T>(self, config: Option<T>) -> Result<T, ConfigError> {
        match config {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(ConfigError(self.problems)),
        }
    }

    /// The text of a setting, if it is one, and where it is from when that isn't the environment.
    fn text(&self, name: &str) -> Option<(Option<String>, String)> {
        if self.unreadable.contains(name) {
            return Some((None, String::new()));
        }
        if let Some(text) = self.variables.get(name).filter(|t| !t.is_empty()) {
            return Some((Some(text.clone()), String::new()));
        }
        let key = name.to_ascii_lowercase();
        let text = match self.file.get(&key)? {
            toml::Value::String(text) => Some(text.clone()),
            toml::Value::Integer(number) => Some(number.to_string()),
            toml::Value::Boolean(flag) => Some(flag.to_string()),
            // No setting is anything else.
            _ => None,
        };
        Some((text, format!(" ({key} in {})", self.file_name)))
    }
}

/// A service's address: http or https, and nothing in it that isn't to be shown. What lets in is
/// `SERVICE_TOKENS`.
pub fn http_address(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let usable = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    usable.then_some(url)
}

/// What every service needs.
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `DATABASE_URL` | required | `postgres://user:password@host:port/database`; on another machine with `DATABASE_CA`, or with an `sslmode` |
/// | `DATABASE_CA` | none | the authority of the database's certificate, as PEM text: it is verified |
/// | `DATABASE_SSLMODE` | `verify-full` | `verify-ca` where that certificate has another name than the host |
/// | `BIND` | `127.0.0.1` | address to listen on |
/// | `PORT` | the service's | port to listen on; 0 takes any free one |
/// | `DB_POOL_SIZE` | 8 | connections to the database at most, 1 to 100 |
/// | `DB_TIMEOUT_MS` | 1000 | longest that a piece of database work may take |
/// | `REQUEST_BUDGET_MS` | 1900 | longest that a request may take; callers may ask for less |
/// | `MIGRATE_ON_START` | `true` | bring the database's schema up to date before becoming ready |
/// | `SHUTDOWN_DELAY_MS` | 250 | how long after SIGTERM readiness says no while requests are still taken: longer than whoever sends them needs to notice |
/// | `SHUTDOWN_TIMEOUT_MS` | 8000 | longest that is then waited for running work |
/// | `MAX_CONNECTIONS` | 1024 | connections at a time; half of the descriptors that there may be (`ulimit -Hn`) where that is less |
/// | `MAX_HEAD_BYTES` | 16384 | a request's line and headers, of which there may be 100; 431 beyond that |
/// | `HEAD_TIMEOUT_MS` | 10000 | longest that they may take to arrive |
/// | `BODY_TIMEOUT_MS` | 10000 | longest that a body may take to arrive |
/// | `IDLE_TIMEOUT_MS` | 100000 | how long a connection waits for its next request |
/// | `WRITE_TIMEOUT_MS` | 10000 | how long a client may take nothing of its answer |
///
/// Those of [`AccessConfig`] too.
#[derive(Clone, Debug)]
pub struct BaseConfig {
    /// The service's name, as other services know it.
    pub name: &'static str,
    /// Where to listen.
    pub address: SocketAddr,
    /// Where the data is.
    pub database_url: DatabaseUrl,
    /// Connections at most.
    pub pool_size: u32,
    /// Longest that a piece of database work may take.
    pub database_timeout: Duration,
    /// Longest that a request may take.
    pub budget: Duration,
    /// Whether the schema is brought up to date at the start.
    pub migrate: bool,
    /// How long requests are still taken once readiness says no.
    pub shutdown_delay: Duration,
    /// Longest that a shutdown then waits for running work.
    pub shutdown_timeout: Duration,
    /// Who is let in.
    pub access: AccessConfig,
    /// What a client may take.
    pub limits: Limits,
}

impl BaseConfig {
    /// Reads the variables of the table above.
    pub fn read(
        reader: &mut Reader,
        name: &'static str,
        default_port: u16,
        callers: Callers,
    ) -> Option<Self> {
        let bind = reader.or(
            "BIND",
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            "an IP address such as 127.0.0.1 or 0.0.0.0",
            |t| t.parse().ok(),
        );
        let port = reader.or("PORT", default_port, "a port, from 0 to 65535", |t| t.parse().ok());
        let pool_size = reader.number("DB_POOL_SIZE", 8, 1..=100);
        let database_timeout = reader.millis("DB_TIMEOUT_MS", 1000);
        let budget = reader.millis("REQUEST_BUDGET_MS", 1900);
        let migrate = reader.flag("MIGRATE_ON_START", true);
        let shutdown_delay = reader.millis("SHUTDOWN_DELAY_MS", 250);
        let shutdown_timeout = reader.millis("SHUTDOWN_TIMEOUT_MS", 8000);
        let access = AccessConfig::read(reader, bind, callers);
        let limits = Limits::read(reader);
        let database_url = DatabaseUrl::read(reader, name)?;
        Some(Self {
            name,
            address: SocketAddr::new(bind, port),
            database_url,
            pool_size,
            database_timeout,
            budget,
            migrate,
            shutdown_delay,
            shutdown_timeout,
            access,
            limits,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn reader(variables: &[(&str, &str)]) -> Reader {
        let owned = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Reader::from_variables(owned).unwrap()
    }

    fn read(variables: &[(&str, &str)]) -> Result<BaseConfig, ConfigError> {
        let mut reader = reader(variables);
        let config = BaseConfig::read(&mut reader, "thing", 8000, Callers::Services);
        reader.finish(config)
    }

    #[test]
    fn a_missing_variable_is_named_with_what_it_should_look_like() {
        let error = read(&[]).unwrap_err().to_string();
        assert!(error.contains("DATABASE_URL is missing"), "{error}");
        assert!(error.contains("postgres://"), "{error}");
    }

    #[test]
    fn every_mistake_is_reported_at_once_and_no_secret_is_repeated() {
        let error = read(&[("PORT", "x"), ("BIND", "y"), ("DATABASE_URL", "mysql://u:geheim@h/d")])
            .unwrap_err()
            .to_string();
        for name in ["PORT", "BIND", "DATABASE_URL"] {
            assert!(error.contains(name), "{error}");
        }
        assert!(!error.contains("geheim"), "{error}");
    }

    #[test]
    fn no_secret_is_shown() {
        let token = "geheim-geheim-geheim-geheim-geheim-";
        let config = read(&[
            ("DATABASE_URL", "postgres://u:geheim@h/d?sslmode=require"),
            ("SERVICE_TOKENS", &format!("{token}1,{token}2")),
            ("MANAGEMENT_TOKENS", &format!("{token}3")),
        ]);
        let shown = format!("{:?}", config.unwrap());
        assert!(shown.contains("Tokens(2)") && !shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn what_is_no_text_is_a_mistake_and_never_missing() {
        let token = OsString::from_vec([b"geheim".repeat(6), vec![0xff]].concat());
        for name in ["SERVICE_TOKENS", "MANAGEMENT_TOKENS", "PORT", "DATABASE_URL"] {
            let good = ("DATABASE_URL".into(), "postgres://localhost/d".into());
            let mut reader = Reader::from_os([good, (name.into(), token.clone())]).unwrap();
            let config = BaseConfig::read(&mut reader, "thing", 8000, Callers::Services);
            let error = reader.finish(config).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} should be")), "{error}");
            assert!(!error.contains("geheim") && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn a_service_s_address_holds_no_password() {
        for address in [
            "http://u:geheim@h",
            "https://geheim@h/",
            "http://:geheim@h",
            "https://h?token=geheim",
            "https://h#geheim",
            "ftp://geheim",
            "geheim.example.com",
            "http://",
        ] {
            let mut reader = reader(&[("ORDER_URL", address)]);
            let url = reader.service_url("ORDER_URL", 1);
            let error = reader.finish(Some(url)).unwrap_err().to_string();
            assert!(
                error.starts_with("ORDER_URL should be") && !error.contains("geheim"),
                "{error}"
            );
        }
        for address in ["https://h:1/below", "http://127.0.0.1:8480/", "http://[::1]:1/"] {
            let mut reader = reader(&[("ORDER_URL", address)]);
            let url = reader.service_url("ORDER_URL", 1);
            assert_eq!(reader.finish(Some(url)).unwrap().as_str(), address);
        }
    }

    #[test]
    fn a_list_in_the_file_is_no_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let list = format!("service_tokens = ['{}']\n", "geheim".repeat(6));
        std::fs::write(file.path(), list).unwrap();
        let path = file.path().to_str().unwrap();
        let database = ("DATABASE_URL", "postgres://localhost/d");
        let error = read(&[("CONFIG_PATH", path), database]).unwrap_err().to_string();
        assert!(error.starts_with("SERVICE_TOKENS (service_tokens in "), "{error}");
        assert!(!error.contains("geheim") && error.lines().count() == 1, "{error}");
    }

    #[test]
    fn a_variable_wins_over_the_file_and_the_file_over_the_default() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "port = 1234\ndb_pool_size = 3\ndatabase_url = 'postgres://localhost/d'\n",
        )
        .unwrap();
        let path = file.path().to_str().unwrap();
        let config = read(&[("CONFIG_PATH", path), ("PORT", "4321")]).unwrap();
        assert_eq!(config.address.port(), 4321);
        assert_eq!(config.pool_size, 3);
        assert_eq!(config.budget, Duration::from_millis(1900));
    }

    #[test]
    fn a_mistake_in_the_file_names_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "port = 'x'\ndatabase_url = 'postgres://localhost/d'\n")
            .unwrap();
        let path = file.path().to_str().unwrap();
        let error = read(&[("CONFIG_PATH", path)]).unwrap_err().to_string();
        assert!(error.contains("PORT") && error.contains(path), "{error}");
    }
}

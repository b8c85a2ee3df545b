//! Where the database is, and how it proves that it is that one.

use std::fmt;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;

use tempfile::TempPath;
use url::Url;

use crate::config::Reader;

/// libpq's modes that hold a server to its certificate.
const VERIFIED: [&str; 2] = ["verify-full", "verify-ca"];

const LOOKS_LIKE_PEM: &str = "certificates as text, each from -----BEGIN CERTIFICATE----- on";

/// The address of a database, as libpq takes it.
///
/// A server elsewhere than on this machine is held to its certificate, unless the address itself says
/// otherwise: an address that says nothing of it would be encrypted where the server likes to, for
/// whoever answers.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    /// libpq reads authorities from a file alone: this one is there for as long as anybody connects.
    _authority: Option<Arc<TempPath>>,
}

impl DatabaseUrl {
    /// Reads `DATABASE_URL`, `DATABASE_CA` and `DATABASE_SSLMODE`; `name` is the service's.
    pub(crate) fn read(reader: &mut Reader, name: &str) -> Option<Self> {
        let looks_like = format!(
            "an address such as postgres://user:password@127.0.0.1:5432/{name}, each other sign than \
             letters, digits and -._~ in the password as %XX"
        );
        let authority = reader.optional("DATABASE_CA", LOOKS_LIKE_PEM, |text| {
            let whole = ["-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"];
            whole.iter().all(|line| text.contains(line)).then(|| text.to_owned())
        });
        let mode = reader.or(
            "DATABASE_SSLMODE",
            VERIFIED[0].to_owned(),
            "verify-full, or verify-ca where the certificate has another name than the host",
            |text| VERIFIED.contains(&text).then(|| text.to_owned()),
        );
        if authority.is_none() && reader.is_given("DATABASE_SSLMODE") {
            reader.problem("DATABASE_SSLMODE is how DATABASE_CA is used, which isn't set");
        }
        let (text, url) = reader.required("DATABASE_URL", &looks_like, |text| {
            let url = Url::parse(text).ok().filter(|_| is_plain(text))?;
            matches!(url.scheme(), "postgres" | "postgresql").then(|| (text.to_owned(), url))
        })?;
        let says_mode = parameter(&url, "sslmode").is_some();
        match authority {
            Some(_) if says_mode || parameter(&url, "sslrootcert").is_some() => {
                reader.problem("DATABASE_URL has an sslmode or sslrootcert, and DATABASE_CA is set: one of them");
                None
            }
            Some(authority) => match Self::held_to(&text, &authority, &mode) {
                Ok(held) => Some(held),
                Err(error) => {
                    reader.problem(format!("DATABASE_CA can't be written to a file: {error}"));
                    None
                }
            },
            None if says_mode || is_local(&url) => Some(Self { text, _authority: None }),
            None => {
                reader.problem(
                    "DATABASE_URL is of another machine, which must prove that it is that one: \
                     set DATABASE_CA, or say sslmode in the address (sslmode=disable where nobody \
                     else is on the network)",
                );
                None
            }
        }
    }

    /// As libpq takes it. It holds a password.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn held_to(text: &str, authority: &str, mode: &str) -> io::Result<Self> {
        let mut file = tempfile::Builder::new().prefix("database-ca-").suffix(".pem").tempfile()?;
        file.write_all(authority.as_bytes())?;
        let path = file.into_temp_path();
        let name: String =
            url::form_urlencoded::byte_serialize(path.as_os_str().as_encoded_bytes())
                .collect::<String>()
                .replace('+', "%20");
        let separator = if text.contains('?') { '&' } else { '?' };
        let text = format!("{text}{separator}sslmode={mode}&sslrootcert={name}");
        Ok(Self { text, _authority: Some(Arc::new(path)) })
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseUrl").finish_non_exhaustive()
    }
}

/// Whether libpq reads it as [`Url`] does. Where it can't make sense of an address, it says so with what it
/// takes for a part of it, which is the password more often than not.
fn is_plain(text: &str) -> bool {
    let encoded = text.split('%').skip(1).all(|behind| {
        behind.get(..2).is_some_and(|hex| hex != "00" && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    let (_, rest) = text.split_once("://").unwrap_or_default();
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    encoded
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        && authority.matches('@').count() <= 1
        && !rest.contains(['@', '#'])
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    // libpq, too, takes the last one.
    url.query_pairs().filter(|(found, _)| found == name).last().map(|(_, value)| value.into_owned())
}

/// This machine, by its loopback interface or by a socket in a folder. Of several, each.
fn is_local(url: &Url) -> bool {
    let host = match (parameter(url, "hostaddr").or(parameter(url, "host")), url.host_str()) {
        (Some(host), _) => host,
        (None, Some(host)) => host.trim_matches(['[', ']']).replace("%2F", "/").replace("%2f", "/"),
        (None, None) => return true,
    };
    // libpq tries each of several.
    host.split(',').all(|host| {
        host.is_empty()
            || host == "localhost"
            || host.starts_with('/')
            || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";

    fn read(variables: &[(&str, &str)]) -> Result<DatabaseUrl, String> {
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let mut reader = Reader::from_variables(variables).unwrap();
        let url = DatabaseUrl::read(&mut reader, "thing");
        reader.finish(url).map_err(|error| error.to_string())
    }

    #[test]
    fn another_machine_must_prove_itself_unless_the_address_says_otherwise() {
        for local in [
            "postgres://u:p@127.0.0.1:5432/d",
            "postgres://localhost/d",
            "postgresql://[::1]/d",
            "postgres://%2Frun%2Fpostgresql/d",
            "postgres:///d?host=/run/postgresql",
        ] {
            assert_eq!(read(&[("DATABASE_URL", local)]).unwrap().as_str(), local);
        }
        for remote in [
            "postgres://u:geheim@db.example/d",
            "postgres://u:geheim@10.0.0.7/d",
            "postgres://localhost/d?host=db.example",
            "postgres:///d?host=/run/postgresql,db.example",
            "postgres://localhost,db.example/d",
        ] {
            let error = read(&[("DATABASE_URL", remote)]).unwrap_err();
            assert!(error.contains("DATABASE_CA") && !error.contains("geheim"), "{error}");
            let separator = if remote.contains('?') { '&' } else { '?' };
            let said = format!("{remote}{separator}sslmode=disable");
            assert_eq!(read(&[("DATABASE_URL", &said)]).unwrap().as_str(), said);
        }
    }

    #[test]
    fn an_authority_is_a_file_for_as_long_as_the_address_is_used() {
        let remote = ("DATABASE_URL", "postgres://u:geheim@db.example/d");
        let url = read(&[remote, ("DATABASE_CA", PEM)]).unwrap();
        let (address, file) = url.as_str().split_once("&sslrootcert=").unwrap();
        assert_eq!(address, "postgres://u:geheim@db.example/d?sslmode=verify-full");
        let file = file.replace("%2F", "/");
        let copy = url.clone();
        drop(url);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), PEM);
        drop(copy);
        assert!(!std::path::Path::new(&file).exists());

        let pinned = [remote, ("DATABASE_CA", PEM), ("DATABASE_SSLMODE", "verify-ca")];
        assert!(read(&pinned).unwrap().as_str().contains("?sslmode=verify-ca&"));
    }

    #[test]
    fn nothing_weakens_what_an_authority_is_given_for() {
        let remote = "postgres://u:geheim@db.example/d";
        for (url, ca, mode, named) in [
            (format!("{remote}?sslmode=require"), PEM, "", "sslmode"),
            (format!("{remote}?sslrootcert=/x"), PEM, "", "sslrootcert"),
            (remote.to_owned(), PEM, "require", "DATABASE_SSLMODE"),
            (remote.to_owned(), "/etc/ca.pem", "", "DATABASE_CA"),
            (format!("{remote}?sslmode=disable"), "", "verify-full", "DATABASE_SSLMODE"),
        ] {
            let error = read(&[
                ("DATABASE_URL", url.as_str()),
                ("DATABASE_CA", ca),
                ("DATABASE_SSLMODE", mode),
            ]);
            let error = error.unwrap_err();
            assert!(error.contains(named) && !error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn an_address_that_libpq_would_read_otherwise_is_refused_without_its_password() {
        for address in [
            "postgres://u:geh%zzeim@127.0.0.1/d",
            "postgres://u:geheim%@127.0.0.1/d",
            "postgres://u:geheim%00@127.0.0.1/d",
            "postgres://u:p@geheim@127.0.0.1/d",
            "postgres://u:1?geheim@127.0.0.1/d",
            "postgres://u:1/geheim@127.0.0.1/d",
            "postgres://u:1#geheim@127.0.0.1/d",
            "postgres://u:geheim@127.0.0.1/d\n",
            "host=127.0.0.1 password=geheim dbname=d",
        ] {
            let error = read(&[("DATABASE_URL", address)]).unwrap_err();
            assert!(error.contains("%XX") && !error.contains("geheim"), "{error}");
        }
        let encoded = "postgres://u:p%40%3f%2F%25@127.0.0.1/d?application_name=a%40b";
        assert_eq!(read(&[("DATABASE_URL", encoded)]).unwrap().as_str(), encoded);
    }

    #[test]
    fn it_shows_no_password() {
        let url = read(&[("DATABASE_URL", "postgres://u:geheim@127.0.0.1/d")]).unwrap();
        assert!(!format!("{url:?}").contains("geheim"));
    }
}

//! What ships the store, carried out here: the scripts and commands are the very ones, and what they
//! speak to stands in for a platform that can't be reached.
//!
//! - [`deploy`], [`heroku`]: `heroku/`, on a [`platform`] that runs the services' real processes.
//! - [`kubernetes`]: `kubernetes/`, on a stand-in that keeps replica sets.
//! - [`github`]: what workflows run, in a repository of its own.
//! - [`smoke`]: `scripts/smoke`, by itself.
//! - [`containers`]: an image's health check, and databases.
//! - [`tls`]: a database and a broker that must prove who they are.
//! - [`manifests`]: what is written for others to read: their schemas, and what must hold in them.

mod containers;
mod deploy;
mod dyno;
mod github;
mod heroku;
mod kubernetes;
pub(crate) mod manifests;
mod platform;
mod smoke;
mod tls;

use std::path::PathBuf;

/// A file of the repository.
pub(crate) fn file(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The command of a stage of the Dockerfile, its instruction's words.
fn instruction(stage: &str, name: &str) -> Vec<String> {
    let text = read("Dockerfile");
    let begin = text.find(&format!(" AS {stage}\n")).unwrap();
    let end = text[begin..].find("\nFROM ").map_or(text.len(), |at| begin + at);
    let line = text[begin..end].lines().find(|line| line.starts_with(&format!("{name} ")));
    let line = line.unwrap_or_else(|| panic!("{stage} has no {name}"));
    serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
}

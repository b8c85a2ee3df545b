//! What it costs to depend on a library: crates, and the time of a first build.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, process};

pub(crate) struct Footprint {
    pub(crate) name: &'static str,
    /// Itself, and all that it brings.
    pub(crate) crates: usize,
    /// Of `cargo build`, from an empty target folder.
    pub(crate) build: Duration,
}

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Builds a program that depends on nothing else, in a folder of its own. The versions are those
/// that were measured: nothing is downloaded.
pub(crate) fn measure(name: &'static str, requirement: &str) -> Footprint {
    let folder = Folder::new(name);
    let manifest = format!(
        "[package]\nname = \"empty\"\nedition = \"2024\"\n\n[dependencies]\n{name} = {requirement}\n"
    );
    fs::write(folder.0.join("Cargo.toml"), manifest).expect("a manifest");
    fs::write(folder.0.join("src/main.rs"), "fn main() {}\n").expect("a program");
    fs::copy(Path::new(HERE).join("Cargo.lock"), folder.0.join("Cargo.lock")).expect("versions");

    let tree =
        folder.cargo(&["tree", "--edges", "normal,build", "--prefix", "none", "--no-dedupe"]);
    let mut crates: Vec<&str> = tree.lines().filter_map(|line| line.split(" (").next()).collect();
    crates.sort_unstable();
    crates.dedup();
    let began = Instant::now();
    folder.cargo(&["build", "--quiet"]);
    // But for the empty program.
    Footprint { name, crates: crates.len() - 1, build: began.elapsed() }
}

/// Goes away with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("footprint-{name}-{}", process::id()));
        fs::create_dir_all(folder.join("src")).expect("a temporary folder");
        Self(folder)
    }

    fn cargo(&self, arguments: &[&str]) -> String {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(arguments)
            .arg("--offline")
            .current_dir(&self.0)
            .env("CARGO_TARGET_DIR", self.0.join("target"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

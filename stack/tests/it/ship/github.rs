//! What workflows run, in a repository of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use super::file;

/// Stands in for `gh`: answers with $ISSUES, and writes down what it is asked to change.
const GH: &str = r#"#!/usr/bin/env bash
case "$1 $2" in
    "issue list") echo "$ISSUES" ;;
    *) echo "$*" >>"${0%/*}/done" ;;
esac
"#;

fn git(folder: &Path, words: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t.test", "-c", "init.defaultBranch=main"])
        .args(words)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn script(folder: &Path, words: &[&str], issues: &str) -> Output {
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(folder.join(words[0]));
    command.args(&words[1..]).env("PATH", path).env("GH_TOKEN", "geheim").env("ISSUES", issues);
    command.output().unwrap()
}

/// The scripts, beside a version and what is said of it.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("scripts")).unwrap();
    for name in ["deployment.sh", "release", "night-failed"] {
        let path = format!("scripts/{name}");
        std::fs::copy(file(&path), folder.path().join(&path)).unwrap();
    }
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("Cargo.toml", "[workspace.package]\nversion = \"1.2.3\"\n[workspace.dependencies]\n");
    write("CHANGELOG.md", "## [1.2.3]\n\nIt sells.\n\n## [1.2.2]\n\nIt didn't.\n");
    write("gh", GH);
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path().join("gh"), executable).unwrap();
    folder
}

#[test]
fn a_release_is_of_a_tag_on_main_that_says_the_version_and_what_is_new() {
    let repository = repository();
    let folder = repository.path();
    let release = |tag: &str| {
        let output = script(folder, &["scripts/release", "--dry-run", tag], "");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    git(folder, &["init", "--quiet"]);
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "--message", "one"]);
    git(folder, &["tag", "v1.2.3"]);
    git(folder, &["tag", "v1.2.4"]);
    git(folder, &["update-ref", "refs/remotes/origin/main", "HEAD"]);
    assert_eq!(release("v1.2.3"), (Some(0), "\nIt sells.\n".to_owned()));
    for wrong in ["v1.2.4", "1.2.3", "v1.2.3 ", "v9.9.9"] {
        assert_eq!(release(wrong).0, Some(2), "{wrong}");
    }

    // Somebody's branch, tagged: it is what would be built.
    git(folder, &["checkout", "--quiet", "-b", "theirs"]);
    git(folder, &["commit", "--quiet", "--allow-empty", "--message", "two"]);
    assert!(release("v1.2.3").1.contains("is not what is checked out"));
    git(folder, &["tag", "--force", "v1.2.3"]);
    assert!(release("v1.2.3").1.contains("is not on main"));
}

#[test]
fn a_night_that_fails_is_said_once_and_then_again_in_the_same_place() {
    let repository = repository();
    let folder = repository.path();
    for issues in ["[]", r#"[{"number": 7, "title": "The nightly run fails"}]"#] {
        let output = script(folder, &["scripts/night-failed", "https://ci.test/1"], issues);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let done = std::fs::read_to_string(folder.join("done")).unwrap();
    assert_eq!(
        done,
        "issue create --title The nightly run fails --body https://ci.test/1\n\
         issue comment 7 --body Again: https://ci.test/1\n"
    );
}

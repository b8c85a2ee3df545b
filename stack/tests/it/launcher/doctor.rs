//! `doctor`, of this machine.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use backing::process::wait_until;
use nix::sys::signal::{Signal, kill};

use super::harness::{LIMIT, Launcher, folder, order, pid, program, status};

/// What it says that isn't ok: as it is said, without spaces in a row.
fn wrong(folder: &Path, variables: &[(&str, &str)], code: i32) -> Vec<String> {
    let output = program(folder).arg("doctor").envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stderr.is_empty() && text.lines().count() > 2, "{text}");
    let lines = text.lines().filter(|line| !line.starts_with("ok "));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The others find out that it is there again.
fn heals(folder: &Path) {
    let is_well = || program(folder).arg("doctor").output().unwrap().status.success();
    assert!(wait_until(LIMIT, is_well));
}

#[test]
fn doctor_says_what_a_start_would_meet_and_touches_nothing() {
    let folder = folder();
    let stack = folder.path().join("stack");
    assert_eq!(wrong(&stack, &[], 0), Vec::<String>::new());
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let taken = wrong(&stack, &[("ORDER_PORT", &port)], 1);
    assert!(
        taken.len() == 1
            && taken[0].starts_with(&format!("error order port {port} of order is taken by it-"))
            && taken[0].contains(&format!("(pid {}); ORDER_PORT", std::process::id())),
        "{taken:?}"
    );
    let missing = wrong(&stack, &[("PG_BINDIR", "/nowhere")], 1);
    assert!(missing.len() == 1 && missing[0].contains("PG_BINDIR must be"), "{missing:?}");
    let given = ["STORE", "ORDER", "WAREHOUSE", "WARRANTY"]
        .map(|name| (format!("{name}_DATABASE_URL"), "postgres://u:geheim@127.0.0.1:1/d"));
    let given: Vec<_> = given.iter().map(|(name, url)| (name.as_str(), *url)).collect();
    let lost = wrong(&stack, &given, 1);
    let all = lost.iter().all(|line| line.contains("its database can't be used"));
    assert!(lost.len() == 4 && all && !lost.concat().contains("geheim"), "{lost:?}");
    assert!(!stack.exists(), "nothing is made");
}

#[test]
fn doctor_names_the_part_that_is_down_and_no_other() {
    let folder = folder();
    let path = folder.path();
    let launcher = Launcher::ready(path);
    assert_eq!(wrong(path, &[], 0), Vec::<String>::new());
    for part in ["warranty", "postgres"] {
        order(path, &["stop", part]);
        let said =
            format!("error {part} it is not running; start it with: cargo run -- start {part}");
        assert_eq!(wrong(path, &[], 1), [said]);
        order(path, &["start", part]);
        heals(path);
    }
    let frozen = pid(&status(path)["postgres"]);
    kill(frozen, Signal::SIGSTOP).unwrap();
    let said = wrong(path, &[], 1);
    kill(frozen, Signal::SIGCONT).unwrap();
    assert!(said.len() == 1 && said[0].starts_with("error postgres it"), "{said:?}");
    heals(path);

    let state = path.join("state.json");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o644)).unwrap();
    let said = wrong(path, &[], 1);
    let state = state.display().to_string();
    assert_eq!(said, [format!("error launcher others can use {state}: chmod 600 {state}")]);

    launcher.signal(Signal::SIGSTOP);
    let said = {
        let output = program(path).arg("doctor").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    launcher.signal(Signal::SIGCONT);
    assert!(said.starts_with("error    launcher   it doesn't answer"), "{said}");
}

//! `--locked`: what the launcher prints works as it is printed, and so do its own commands.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::harness::{Launcher, SERVICES, folder, http, order, program, status};
use super::{ALEX, ITEM};

#[test]
fn locked_store_is_opened_by_what_the_launcher_prints_and_by_its_own_commands() {
    let parent = folder();
    // Whose name a shell would take apart.
    let folder = parent.path().join("it's a folder");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.as_path();
    let mut launcher = Launcher::spawn(program(path).arg("--locked"));
    launcher.wait_for("Ctrl-C ends everything");
    let printed = launcher.printed().join("\n");
    let lines: Vec<_> = printed.lines().map(str::trim).filter(|l| l.starts_with("curl ")).collect();
    let expected = [
        r#""status":"Work""#,
        "HTTP/1.1 201 Created",
        r#""status":"PAID","model":"Lego 8070""#,
        r#""management":"token","serviceTokens":1"#,
        r#""status":"PAID""#,
    ];
    assert_eq!(lines.len(), expected.len(), "{printed}");
    for (line, expected) in lines.iter().zip(expected) {
        let output = Command::new("bash").args(["-c", line]).output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(answer.contains(expected), "{line}: {answer}");
    }

    let parts = status(path);
    for service in SERVICES {
        let url = &parts[service]["url"];
        assert_eq!(http(url, "GET", "/metrics", "").0, 401, "{service}");
        assert_eq!(http(url, "GET", "/manage/health", "").0, 200, "{service}");
        let docs = if service == "store" { 200 } else { 401 };
        assert_eq!(http(url, "GET", "/docs/", "").0, docs, "{service}");
    }
    assert!(order(path, &["status"]).contains("locked: "));
    assert!(order(path, &["sagas"]).contains("place: 0 running"));
    assert!(order(path, &["deferred"]).contains("order, broker: Absent"));
    order(path, &["stop", "warehouse", "--kill"]);
    order(path, &["start", "warehouse"]);
    let buy = || http(&parts["store"]["url"], "POST", &format!("{ALEX}/purchase"), ITEM).0;
    assert_eq!(buy(), 201, "a part that was started again has the same tokens");

    let mut secrets = Vec::new();
    for name in ["service.token", "management.token"] {
        let file = folder.join(name);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        let header = fs::read_to_string(&file).unwrap();
        secrets.push(header.trim().rsplit(' ').next().unwrap().to_owned());
    }
    let logs = SERVICES.map(|service| {
        fs::read_to_string(folder.join("logs").join(format!("{service}.log"))).unwrap()
    });
    for secret in secrets {
        assert_eq!(secret.len(), 64);
        assert!(!printed.contains(&secret) && !logs.iter().any(|log| log.contains(&secret)));
    }
    drop(launcher);
    assert!(!folder.join("service.token").exists() && !folder.join("management.token").exists());
}

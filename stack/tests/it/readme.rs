//! The README's own commands, in its order, against a real launcher.

use std::process::Command;

use crate::launcher::harness::{Launcher, folder, program, status};

const README: &str = include_str!("../../../README.md");

/// The blocks that a reader types.
fn commands() -> Vec<&'static str> {
    let blocks = README.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_readme_says_what_happens() {
    let folder = folder();
    let _launcher = Launcher::ready(folder.path());
    let store = status(folder.path())["store"]["url"].as_str().unwrap().to_owned();
    let expected: [&[&str]; 11] = [
        &["HTTP/1.1 201 Created", "location: /api/v1/store/6d2cb5a0", r#"{"orderUid":""#],
        &[r#""status":"PAID","model":"Lego 8070","size":"M","#, "ON_WARRANTY"],
        &[r#""decision":"RETURN""#, "HTTP/1.1 204 No Content"],
        &[r#""status":"CANCELED""#, r#""degraded":["warehouse"],"stale":["warehouse"]"#],
        &[r#""code":"rolled_back""#, r#""dependency":"warehouse""#, "connection refused"],
        &["take-back: 0 running 0 compensating 0 stuck", "compensated", ": connection refused"],
        &["HTTP/1.1 202 Accepted", "/warranty", r#""status":"QUEUED""#],
        &[
            "warehouse is ready",
            r#""status":"DECIDED","reason":"another one is","decision":"REFUSED""#,
            r#""status":"DECIDED","reason":"a brick is missing","decision":"RETURN""#,
        ],
        &[
            ": refunded\n",
            "place take: asks warehouse",
            "return give-back: warehouse says yes",
            "the order is refunded",
        ],
        &[
            r#""service":"store""#,
            r#""name":"order/read","state":"closed""#,
            r#""retryBudgets":[]"#,
        ],
        &[r#""scope":"replica""#, r#""state":"forced_open""#, r#""state":"closed""#],
    ];
    // One shell for all of them, as its variables are used further down.
    let script = commands().join("\necho ===\n");
    let script = script
        .replace("http://127.0.0.1:8480", &store)
        .replace("cargo run -q --", env!("CARGO_BIN_EXE_stack"));
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]);
    for (name, value) in program(folder.path()).get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = shell.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<_> = printed.split("===").collect();
    assert_eq!(answers.len(), expected.len(), "{printed}");
    for (answer, expected) in answers.iter().zip(expected) {
        for text in expected {
            assert!(answer.contains(text), "no {text} in {answer}");
        }
    }
}

//! What is written for others to read: its schemas where they can be had without a network
//! (`make lint-ship` has the rest), and what must hold in it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{file, instruction, read};
use crate::world::Part;

/// Every document of a file of YAML. Debian's Python reads it: `scripts/prerequisites` has seen to that.
pub(crate) fn yaml(text: &str) -> Vec<Value> {
    let read =
        "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.argv[1])), sys.stdout)";
    let output = Command::new("/usr/bin/python3").args(["-c", read, text]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// What a script prints.
fn printed(words: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(file(words[0]));
    let output = command.args(&words[1..]).envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The texts of an array.
fn texts(array: &Value) -> BTreeSet<&str> {
    array.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// What the image of PostgreSQL or of a runtime is known by, of everybody who installs packages.
fn installs(stage: &str) -> BTreeSet<String> {
    let text = read("Dockerfile");
    let begin = text.find(&format!(" AS {stage}\n")).unwrap();
    let line = text[begin..].lines().find(|line| line.contains("apt-get install")).unwrap();
    let words = line.split_whitespace().filter(|word| !word.starts_with(['-', '&', '\\']));
    words.filter(|word| !["apt-get", "install"].contains(word)).map(str::to_owned).collect()
}

#[test]
fn every_script_is_one_that_shellcheck_has_nothing_to_say_of() {
    let files = printed(&["scripts/shell-files"], &[]);
    let files: Vec<_> = files.lines().collect();
    assert!(files.len() > 15, "{files:?}");
    let output = Command::new("shellcheck")
        .arg("--external-sources")
        .args(&files)
        .current_dir(file("."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn manifests_of_apps_are_what_heroku_reads() {
    let is_valid = |manifest: &Path| {
        let output = Command::new("/usr/bin/python3")
            .args(["-m", "jsonschema", "--instance"])
            .arg(manifest)
            .arg(file("heroku/app-json.schema.json"))
            .output()
            .unwrap();
        output.status.success()
    };
    let folder = tempfile::tempdir().unwrap();
    for part in Part::ALL {
        let path = format!("heroku/{}/app.json", part.name());
        assert!(is_valid(&file(&path)), "{path}");
        let wrong = folder.path().join("app.json");
        std::fs::write(&wrong, read(&path).replace("\"addons\"", "\"add_ons\"")).unwrap();
        assert!(!is_valid(&wrong), "a wrong field is noticed");
    }
}

#[test]
fn workflows_run_scripts_of_the_repository_with_no_more_rights_than_they_need() {
    for name in ["ci", "cd", "release"] {
        let workflow = yaml(&read(&format!(".github/workflows/{name}.yml"))).remove(0);
        assert_eq!(workflow["permissions"], serde_json::json!({}), "{name}");
        for (job, it) in workflow["jobs"].as_object().unwrap() {
            assert!(it["timeout-minutes"].is_number() && it["permissions"].is_object(), "{job}");
            for step in it["steps"].as_array().unwrap() {
                let Some(run) = step["run"].as_str() else {
                    let action = step["uses"].as_str().unwrap();
                    let (_, hash) = action.split_once('@').unwrap();
                    assert!(
                        hash.len() == 40 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
                        "{action}"
                    );
                    continue;
                };
                // One command, so that it can be run and tested here; nothing is filled in by GitHub.
                assert!(!run.contains("${{") && run.lines().count() == 1, "{job}: {run}");
                let program = run.split(' ').next().unwrap();
                let is_ours = program == "make" || file(program).is_file();
                assert!(is_ours, "{job}: {run}");
            }
        }
    }
}

/// What is under way is what would be cut off.
#[test]
fn a_nightly_run_takes_the_place_of_no_push_and_what_main_has_left_behind_is_not_deployed() {
    let ci = yaml(&read(".github/workflows/ci.yml")).remove(0);
    let group = ci["concurrency"]["group"].as_str().unwrap();
    assert!(group.contains("github.event_name") && group.contains("github.ref"), "{group}");
    let cd = yaml(&read(".github/workflows/cd.yml")).remove(0);
    assert_eq!(cd["concurrency"]["cancel-in-progress"], false);
    let condition = cd["jobs"]["build"]["if"].as_str().unwrap();
    for wanted in ["event == 'push'", "head_repository.full_name ==", "head_sha == github.sha"] {
        assert!(condition.contains(wanted), "{condition}");
    }
}

#[test]
fn compose_gives_away_no_password_and_shows_store_and_grafana_alone() {
    let compose = yaml(&read("compose.yaml")).remove(0);
    let services = compose["services"].as_object().unwrap();
    let mut shown = BTreeSet::new();
    for (name, service) in services {
        assert_eq!(texts(&service["cap_drop"]), BTreeSet::from(["ALL"]), "{name}");
        assert_eq!(texts(&service["security_opt"]), BTreeSet::from(["no-new-privileges:true"]));
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap();
            let is_secret = ["PASS", "TOKEN", "DATABASE_URL", "AMQP_URL"];
            if is_secret.iter().any(|secret| variable.contains(secret)) {
                assert!(
                    value.contains(":?"),
                    "{name}: {variable} has no default, and must be there"
                );
            }
        }
        for port in texts_or_none(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
            shown.insert(name.as_str());
        }
        // RabbitMQ writes where it likes, and Compose into Prometheus.
        let writes = ["rabbitmq", "prometheus"].contains(&name.as_str());
        assert!(writes || service["read_only"] == true, "{name}");
    }
    assert_eq!(shown, BTreeSet::from(["grafana", "store"]));
    for part in Part::ALL {
        assert!(services.contains_key(part.name()));
    }
    // What Prometheus' own configuration names, Compose brings.
    let prometheus = yaml(&read("containers/prometheus.yml"));
    for rules in texts(&prometheus[0]["rule_files"]) {
        let mounted = texts(&services["prometheus"]["volumes"]);
        assert!(mounted.iter().any(|mount| mount.contains(&format!(":{rules}:ro"))), "{rules}");
    }
}

fn texts_or_none(array: &Value) -> BTreeSet<&str> {
    if array.is_null() { BTreeSet::new() } else { texts(array) }
}

#[test]
fn secrets_of_compose_are_minted_once_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    let mint = || printed(&["scripts/compose-env", folder.path().to_str().unwrap()], &[]);
    mint();
    let minted = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let names: BTreeSet<_> = minted.lines().map(|line| line.split_once('=').unwrap().0).collect();
    let compose = read("compose.yaml");
    for wanted in compose.split("${").skip(1).filter_map(|rest| rest.split_once(":?")) {
        assert!(names.contains(wanted.0), "{} is in compose.yaml and not minted", wanted.0);
    }
    mint();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), minted);
    let ignored = read(".gitignore");
    assert!(ignored.lines().any(|line| line == ".env*"), "{ignored}");
}

#[test]
fn image_runs_as_nobody_and_has_what_its_binaries_are_linked_with() {
    let text = read("Dockerfile");
    let user = text.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(user.split(':').all(|id| id.parse::<u32>().unwrap() > 0), "{user}");
    assert_eq!(instruction("web", "CMD"), ["/service", "serve"]);
    assert_eq!(instruction("release", "CMD"), ["/service", "migrate"]);

    let ldd = Command::new("ldd").arg(env!("CARGO_BIN_EXE_stack")).output().unwrap();
    let linked = String::from_utf8(ldd.stdout).unwrap();
    let packages = installs("web");
    assert!(packages.contains("ca-certificates"));
    // What libpq is linked with comes with it.
    let own = ["libpq.so.5", "libssl.so.3", "libcrypto.so.3"];
    for (library, package) in own.iter().zip(["libpq5", "libssl3", "libssl3"]) {
        assert!(linked.contains(library) && packages.contains(package), "{library}: {packages:?}");
    }
    let needed =
        Command::new("readelf").args(["-d", env!("CARGO_BIN_EXE_stack")]).output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    let libc = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];
    for line in needed.lines().filter(|line| line.contains("(NEEDED)")) {
        let library = line.split(['[', ']']).nth(1).unwrap();
        assert!(own.contains(&library) || libc.contains(&library), "{library} is in no package");
    }
}

#[test]
fn pods_are_probed_confined_and_ended_gracefully() {
    let variables = [("IMAGES", "images.test/shop"), ("HOST", "shop.test")];
    let common = yaml(&printed(&["kubernetes/render", "common"], &variables));
    let of_kind = |all: &[Value], kind: &str| -> Vec<Value> {
        all.iter().filter(|one| one["kind"] == kind).cloned().collect()
    };
    let backends = of_kind(&common, "Ingress").remove(0);
    let paths = backends["spec"]["rules"][0]["http"]["paths"].as_array().unwrap().clone();
    assert!(paths.iter().all(|path| path["backend"]["service"]["name"] == "store"), "{paths:?}");
    // But for health, what operators ask for is not to be had from outside.
    let shown = |path: &Value| path["path"].as_str().unwrap().to_owned();
    assert!(
        paths.iter().map(shown).all(|path| path != "/" && path != "/metrics" && path != "/manage")
    );

    let policies = of_kind(&common, "NetworkPolicy");
    let nobody = serde_json::json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    assert!(policies.iter().any(|policy| policy["spec"] == nobody), "what isn't listed is refused");

    for part in Part::ALL {
        let one = |kind: &str| {
            yaml(&printed(&["kubernetes/render", kind, part.name(), "v1"], &variables))
        };
        let service = one("service");
        let deployment = of_kind(&service, "Deployment").remove(0);
        let (spec, pod) = (&deployment["spec"], &deployment["spec"]["template"]["spec"]);
        assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
        let container = &pod["containers"][0];
        assert_eq!(container["image"], format!("images.test/shop/{}:v1", part.name()));
        assert_eq!(container["command"], serde_json::json!(instruction("web", "CMD")));
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/manage/health/ready");
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/manage/health/live");
        assert_eq!(container["startupProbe"]["httpGet"]["path"], "/manage/health/live");
        let wait = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let variable = |name: &str| -> u64 {
            let env = container["env"].as_array().unwrap().iter();
            let value = env.filter(|one| one["name"] == name).map(|one| &one["value"]).next();
            value.unwrap().as_str().unwrap().parse().unwrap()
        };
        let shutdown = variable("SHUTDOWN_TIMEOUT_MS");
        assert!(grace * 1000 > wait * 1000 + shutdown, "{grace} s are too short");
        let scaler = &of_kind(&service, "HorizontalPodAutoscaler")[0]["spec"];
        assert_eq!(scaler["minReplicas"], 2);
        // While a build is replaced there is one more, and each has one more for probes.
        let most = scaler["maxReplicas"].as_u64().unwrap() + 1;
        let connections = most * (variable("DB_POOL_SIZE") + 1);
        let stated = read("kubernetes/service.yaml");
        assert!(
            stated.contains(&format!("{connections}\n            # connections")),
            "{connections}"
        );
        assert_eq!(of_kind(&service, "PodDisruptionBudget")[0]["spec"]["maxUnavailable"], 1);

        let job = one("migrate").remove(0);
        let migrating = &job["spec"]["template"]["spec"];
        assert_eq!(
            migrating["containers"][0]["command"],
            serde_json::json!(instruction("release", "CMD"))
        );
        for pod in [pod, migrating] {
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["automountServiceAccountToken"], false);
            let confined = &pod["containers"][0]["securityContext"];
            assert_eq!(confined["readOnlyRootFilesystem"], true);
            assert_eq!(confined["allowPrivilegeEscalation"], false);
            assert_eq!(texts(&confined["capabilities"]["drop"]), BTreeSet::from(["ALL"]));
            assert!(pod["containers"][0]["resources"]["limits"]["memory"].is_string());
        }

        // Who calls it reaches it, and nobody else of the four.
        let policy =
            policies.iter().find(|one| one["metadata"]["name"] == format!("to-{}", part.name()));
        let policy = &policy.unwrap()["spec"];
        let label = "app.kubernetes.io/name";
        assert_eq!(policy["podSelector"]["matchLabels"][label], part.name());
        let from = policy["ingress"][0]["from"].as_array().unwrap().clone();
        let allowed: BTreeSet<_> = from
            .iter()
            .filter_map(|one| one["podSelector"]["matchLabels"][label].as_str())
            .collect();
        let callers = Part::ALL.into_iter().filter(|other| other.calls(part)).map(Part::name);
        assert_eq!(allowed, callers.collect());
    }
}

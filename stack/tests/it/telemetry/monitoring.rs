//! Alerts and dashboards: that they work, by Prometheus' own tools, and ask for what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use futures_util::future::join_all;
use regex::Regex;
use serde_json::{Value, json};

use crate::ship::manifests::yaml;
use crate::ship::{file, read};
use crate::world::shop::Promise as _;
use crate::world::{MANAGEMENT_TOKEN, Part, RECOVERY, World};

/// What Prometheus adds to all that it asks for.
const ADDED: [(&str, &str); 2] = [("job", "shop"), ("instance", "store:8080")];

/// Runs a tool on this input; it must have nothing to complain of.
fn passes(words: &[&str], input: &str) {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(file("containers"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{words:?}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(output.status.success(), "{words:?}: {said:?}");
}

/// Every alert, with its rule.
fn alerts() -> BTreeMap<String, Value> {
    let groups = yaml(&read("containers/alerts.yml"))[0]["groups"].clone();
    let rules =
        groups.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule.clone())).collect()
}

/// Every expression of the dashboard, with the labels that its legend shows.
fn panels() -> Vec<(String, BTreeSet<String>)> {
    let dashboard: Value =
        serde_json::from_str(&read("containers/grafana/dashboards/shop.json")).unwrap();
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            let legend = target["legendFormat"].as_str().unwrap();
            let shown = legend.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0);
            let shown = shown.map(str::to_owned).collect();
            all.push((target["expr"].as_str().unwrap().to_owned(), shown));
        }
    }
    all
}

#[test]
fn each_alert_fires_where_it_should_and_only_there() {
    passes(&["promtool", "check", "rules", "alerts.yml"], "");
    passes(&["promtool", "check", "config", "--syntax-only", "prometheus.yml"], "");
    passes(&["promtool", "test", "rules", "alerts.test.yml"], "");
    let tests = yaml(&read("containers/alerts.test.yml"))[0]["tests"].clone();
    let (mut fires, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for test in tests.as_array().unwrap() {
        for tried in test["alert_rule_test"].as_array().unwrap() {
            let name = tried["alertname"].as_str().unwrap().to_owned();
            let expected = tried["exp_alerts"].as_array().unwrap();
            if expected.is_empty() {
                quiet.insert(name)
            } else {
                fires.insert(name)
            };
        }
    }
    let all: BTreeSet<_> = alerts().into_keys().collect();
    assert_eq!(fires, all);
    assert_eq!(quiet, all);
}

#[test]
fn the_example_for_alertmanager_is_one_that_it_reads_and_knows_its_alerts() {
    passes(&["amtool", "check-config", "alertmanager.yml"], "");
    let alerts = alerts();
    let example = read("containers/alertmanager.yml");
    let named = Regex::new(r#"alertname =~? "([^"]*)""#).unwrap();
    for found in named.captures_iter(&example) {
        for name in found[1].split('|') {
            assert!(alerts.contains_key(name), "{name}");
        }
    }
    let severities: BTreeSet<_> =
        alerts.values().map(|rule| rule["labels"]["severity"].as_str().unwrap()).collect();
    assert_eq!(severities, BTreeSet::from(["page", "ticket"]));
    assert!(example.contains(r#"severity = "page""#));
}

#[test]
fn the_dashboard_has_no_expression_that_prometheus_cannot_read() {
    let rules: Vec<_> = panels()
        .iter()
        .enumerate()
        .map(|(number, (expression, _))| json!({"record": format!("shop:{number}"), "expr": expression}))
        .collect();
    assert!(rules.len() > 30, "{rules:?}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.json");
    let rules = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(&path, rules.to_string()).unwrap();
    passes(&["promtool", "check", "rules", path.to_str().unwrap()], "");
}

/// What there is: each metric, its labels, and the values that these have.
type Seen = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn see(seen: &mut Seen, metrics: &str) {
    let label = Regex::new(r#"([a-z_]+)="((?:[^"\\]|\\.)*)""#).unwrap();
    for line in metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = seen.entry(name.to_owned()).or_default();
        let found =
            label.captures_iter(rest).map(|found| (found[1].to_owned(), found[2].to_owned()));
        let added = ADDED.map(|(label, value)| (label.to_owned(), value.to_owned()));
        for (label, value) in found.chain(added) {
            labels.entry(label).or_default().insert(value);
        }
    }
}

/// A label, an operator, and a value.
type Matcher = (String, String, String);

/// What an expression asks for.
#[derive(Debug, Default)]
struct Asked {
    /// Each metric, and what its labels are to be.
    metrics: Vec<(String, Vec<Matcher>)>,
    /// What it groups by.
    labels: BTreeSet<String>,
}

impl Asked {
    fn of(expression: &str) -> Self {
        let mut asked = Self::default();
        let word = Regex::new(r"^[a-zA-Z_][a-zA-Z0-9_]*").unwrap();
        let matcher = Regex::new(r#"([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)""#).unwrap();
        let mut rest = expression;
        while let Some(next) = rest.chars().next() {
            let Some(found) = word.find(rest).map(|found| found.as_str()) else {
                // A time, a number (with its unit), or punctuation.
                let end = match next {
                    '[' => rest.find(']').unwrap() + 1,
                    '0'..='9' => {
                        rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(rest.len())
                    }
                    _ => next.len_utf8(),
                };
                rest = &rest[end..];
                continue;
            };
            rest = rest[found.len()..].trim_start();
            let is_called = ["(", "by ", "by(", "without ", "without("];
            let is_called = is_called.iter().any(|next| rest.starts_with(next));
            if ["by", "without", "on", "ignoring"].contains(&found) {
                let end = rest.find(')').unwrap();
                let list = rest[1..end].split(',').map(|label| label.trim().to_owned());
                asked.labels.extend(list);
                rest = &rest[end..];
            } else if !is_called && !["and", "or", "unless"].contains(&found) {
                let end = if rest.starts_with('{') { rest.find('}').unwrap() } else { 0 };
                let matchers = matcher.captures_iter(&rest[..end]);
                let matchers =
                    matchers.map(|m| (m[1].to_owned(), m[2].to_owned(), m[3].to_owned()));
                asked.metrics.push((found.to_owned(), matchers.collect()));
                rest = &rest[end..];
            }
        }
        asked
    }

    /// Fails where it asks for what isn't there.
    fn check(&self, seen: &Seen, by: &str) {
        assert!(!self.metrics.is_empty(), "{by} asks for nothing");
        let mut known = BTreeSet::new();
        for (metric, matchers) in &self.metrics {
            let labels = seen.get(metric).unwrap_or_else(|| panic!("{by}: there is no {metric}"));
            known.extend(labels.keys().cloned());
            for (label, operator, value) in matchers {
                let values = labels.get(label);
                let values =
                    values.unwrap_or_else(|| panic!("{by}: {metric} has no label {label}"));
                let pattern =
                    if operator.ends_with('~') { value.clone() } else { regex::escape(value) };
                let pattern = Regex::new(&format!("^(?:{pattern})$")).unwrap();
                let some = values.iter().any(|value| pattern.is_match(value));
                assert!(some, "{by}: no {label} of {metric} is {value}: {values:?}");
            }
        }
        let unknown: Vec<_> = self.labels.difference(&known).collect();
        assert!(unknown.is_empty(), "{by}: nothing has {unknown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_the_dashboard_ask_for_what_there_is() {
    let plan = World::plan().impatient().variable("BREAKER_FAILURES", "1");
    let plan = plan.variable("MAX_IN_FLIGHT", "2").variable("MAX_WAITING", "2");
    let world = plan.locked().start().await;
    // Everything that happens in a shop: all is well, too much at once, and somebody is away.
    let order = world.bought().await;
    join_all((0..20).map(|_| world.get(order).send())).await;
    assert_eq!(world.refund(world.bought().await).send().await.status, 204);
    world.kill(Part::Warranty).await;
    assert_eq!(world.buy().send().await.status, 503);
    assert_eq!(world.buy().send().await.status, 503);
    let claim = world.claim(order).send().await.queued(order);
    world.restart(Part::Warranty).await;
    world.settled_claim(RECOVERY, order, claim).await;

    let mut seen = Seen::new();
    see(&mut seen, "up 1");
    // Not there without a broker, which takes long to start. A test of its own knows its name.
    see(&mut seen, "resilience_deferred_broker_up 1");
    let scrape = async || {
        let mut all = String::new();
        for part in Part::ALL {
            let client = world.client(part).with_token(MANAGEMENT_TOKEN);
            let metrics = client.get("/metrics").send().await.text();
            // By its conventions: names, units, and a text for each.
            passes(&["promtool", "check", "metrics"], &metrics);
            all += &metrics;
        }
        all
    };
    see(&mut seen, &scrape().await);
    for (name, rule) in alerts() {
        Asked::of(rule["expr"].as_str().unwrap()).check(&seen, &name);
    }
    for (expression, shown) in panels() {
        let mut asked = Asked::of(&expression);
        asked.labels.extend(shown);
        asked.check(&seen, &expression);
    }
}

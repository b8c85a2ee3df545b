//! A Chromium without a window, and one page in it: asked over its own protocol for developers, on a pipe.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use openssl::base64;
use serde_json::{Value, json};
use service::testing::until;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long the browser may take for anything on a crowded machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Chromium takes commands on descriptor 3, and answers on 4. It ends when nobody holds their other ends,
/// however this process ends.
const PIPED: &str = r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// A browser with a page. Dropped, it is gone.
pub(crate) struct Browser {
    line: Mutex<Line>,
    session: String,
    process: Child,
    _profile: TempDir,
}

struct Line {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    asked: u64,
    /// What its pages had to complain of.
    complaints: Vec<String>,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) dark: bool,
}

impl Line {
    /// Sends a command, and reads until its answer comes.
    async fn ask(&mut self, method: &str, params: Value, session: Option<&str>) -> Value {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).await.unwrap();
        loop {
            let mut bytes = Vec::new();
            let read = self.from.read_until(0, &mut bytes);
            timeout(LIMIT, read).await.unwrap_or_else(|_| panic!("{method} is answered")).unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser has ended");
            let mut said: Value = serde_json::from_slice(&bytes).unwrap();
            if said["id"] == self.asked {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].take();
            }
            self.note(&said);
        }
    }

    fn note(&mut self, said: &Value) {
        let params = &said["params"];
        match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(params["exceptionDetails"].to_string());
            }
            // A request that fails is no defect of the page: that is what it is there for.
            Some("Log.entryAdded")
                if params["entry"]["level"] == "error"
                    && params["entry"]["source"] != "network" =>
            {
                self.complaints.push(params["entry"].to_string());
            }
            _ => {}
        }
    }
}

impl Browser {
    /// With an empty page.
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("/bin/sh")
            .args(["-c", PIPED, "sh"])
            .args(["--headless", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run"])
            .args(["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"])
            .args(["--disable-component-update", "--no-proxy-server", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let to = process.stdin.take().unwrap();
        let from = BufReader::new(process.stdout.take().unwrap());
        let mut line = Line { to, from, asked: 0, complaints: Vec::new() };
        let target = line.ask("Target.createTarget", json!({"url": "about:blank"}), None).await;
        let params = json!({"targetId": target["targetId"], "flatten": true});
        let attached = line.ask("Target.attachToTarget", params, None).await;
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        let browser = Self { line: Mutex::new(line), session, process, _profile: profile };
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        self.line.lock().await.ask(method, params, Some(&self.session)).await
    }

    /// Goes there, and waits until it is loaded.
    pub(crate) async fn open(&self, url: &str) {
        let gone = self.ask("Page.navigate", json!({"url": url})).await;
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        self.until(LIMIT, "document.readyState === 'complete'").await;
    }

    /// What this comes to in the page.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut came = self.ask("Runtime.evaluate", params).await;
        assert!(came["exceptionDetails"].is_null(), "{expression}: {came}");
        came["result"]["value"].take()
    }

    /// Waits until this is true in the page.
    pub(crate) async fn until(&self, limit: Duration, expression: &str) {
        until(limit, expression, async || (self.eval(expression).await == true).then_some(()))
            .await;
    }

    /// Waits until the page says this somewhere.
    pub(crate) async fn says(&self, limit: Duration, text: &str) {
        let shown = format!("document.body?.innerText.includes({}) === true", json!(text));
        let start = std::time::Instant::now();
        while self.eval(&shown).await != true {
            let all = self.eval("document.body.innerText").await;
            let all = all.as_str().unwrap_or_default();
            assert!(start.elapsed() < limit, "not within {limit:?}: {text:?} in\n{all}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Presses a key that types nothing.
    pub(crate) async fn press(&self, key: &str, code: u32) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({"type": kind, "key": key, "code": key, "text": text,
                "windowsVirtualKeyCode": code});
            self.ask("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Types a text where the focus is.
    pub(crate) async fn types(&self, text: &str) {
        self.ask("Input.insertText", json!({"text": text})).await;
    }

    /// From now on it is looked at like this.
    pub(crate) async fn look(&self, look: Look) {
        let params = json!({"width": look.width, "height": 900, "deviceScaleFactor": 1,
            "mobile": look.width < 600});
        self.ask("Emulation.setDeviceMetricsOverride", params).await;
        let scheme = if look.dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// A picture of the whole page, or of so much of it, into this file.
    pub(crate) async fn picture(&self, file: &Path, height: Option<u32>) {
        let size = self.ask("Page.getLayoutMetrics", json!({})).await;
        let size = &size["cssContentSize"];
        let height = height.map_or_else(|| size["height"].clone(), |height| json!(height));
        let clip = json!({"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1});
        let params = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let taken = self.ask("Page.captureScreenshot", params).await;
        let bytes = base64::decode_block(taken["data"].as_str().unwrap()).unwrap();
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }

    /// What no test goes without: no script failed, and nothing was forbidden by the page's own policy.
    pub(crate) async fn ends_well(mut self) {
        let line = self.line.lock().await;
        assert!(line.complaints.is_empty(), "{:#?}", line.complaints);
        drop(line);
        let _ = self.process.kill().await;
    }
}

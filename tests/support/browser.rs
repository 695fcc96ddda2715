//! A real browser without a window, spoken to over a pipe (Chrome DevTools Protocol).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// No answer after this long is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(120);

/// Names of the program, best first.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The browser takes its orders from file 3 and answers to file 4, each message ended by a zero.
/// It is given no sandbox, which a container does not allow it, and sees our own pages only.
const COMMAND: &str = "exec \"$0\" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
    --disable-background-networking --disable-component-update --no-first-run --hide-scrollbars \
    --remote-debugging-pipe --user-data-dir=\"$1\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// A browser with one tab, ended when dropped.
pub struct Browser {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Value>,
    last_id: u64,
    tab: Option<String>,
    complaints: Vec<String>,
    _profile: TempDir,
}

/// How large the tab is, in CSS pixels.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
}

impl Browser {
    /// Starts it. `None` where none is installed, which in CI is a failure.
    pub fn start() -> Option<Self> {
        let Some(program) = PROGRAMS.into_iter().find(|program| is_there(program)) else {
            let in_ci = std::env::var_os("CI").is_some();
            assert!(!in_ci, "no browser: install chromium");
            eprintln!("skipped: chromium is not installed");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", COMMAND, program])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, answers) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || read(stdout, &sender));
        let mut browser = Self {
            orders: child.stdin.take().unwrap(),
            child,
            answers,
            last_id: 0,
            tab: None,
            complaints: Vec::new(),
            _profile: profile,
        };
        browser.open_tab();
        Some(browser)
    }

    fn open_tab(&mut self) {
        let target = self.order("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.order("Target.attachToTarget", attach);
        self.tab = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            self.order(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Goes to a page.
    pub fn open(&mut self, url: &str) {
        let went = self.order("Page.navigate", json!({"url": url}));
        assert!(went["errorText"].is_null(), "{url}: {went}");
    }

    /// Makes the tab this large and tells pages that the user likes it dark or light.
    pub fn resize(&mut self, Screen { width, height }: Screen, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.order("Emulation.setDeviceMetricsOverride", size);
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.order("Emulation.setEmulatedMedia", scheme);
    }

    /// The value of an expression, awaited if it is a promise.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let order = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut evaluated = self.order("Runtime.evaluate", order);
        let failed = &evaluated["exceptionDetails"];
        assert!(failed.is_null(), "{expression}: {failed:#}");
        evaluated["result"]["value"].take()
    }

    /// Waits until an expression is true; it is looked at whenever something on the page changes.
    #[track_caller]
    pub fn wait_for(&mut self, expression: &str) {
        let patience_ms = PATIENCE.as_millis() / 2;
        let wait = format!(
            "new Promise((done, fail) => {{
                const look = () => {{
                    try {{
                        if (!({expression})) return;
                    }} catch {{
                        return; // What it speaks of is not there yet.
                    }}
                    watcher.disconnect();
                    done(true);
                }};
                const watcher = new MutationObserver(look);
                watcher.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
                setTimeout(() => fail(new Error(document.body.innerText)), {patience_ms});
                look();
            }})"
        );
        self.evaluate(&wait);
    }

    /// What the browser complained of since the last call: errors of scripts, whatever the policy of
    /// a page forbade, and pages that did not come.
    pub fn complaints(&mut self) -> Vec<String> {
        // Whatever was to be said before has been said by now.
        self.evaluate("0");
        std::mem::take(&mut self.complaints)
    }

    #[track_caller]
    fn order(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut order = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(tab) = &self.tab {
            order["sessionId"] = tab.as_str().into();
        }
        let mut bytes = order.to_string().into_bytes();
        bytes.push(0);
        self.orders.write_all(&bytes).unwrap();
        loop {
            let mut answer = self.answers.recv_timeout(PATIENCE).unwrap();
            if answer["id"] == self.last_id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.hear(&answer);
        }
    }

    fn hear(&mut self, event: &Value) {
        let params = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => params,
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => &params["entry"],
            _ => return,
        };
        self.complaints.push(format!("{complaint:#}"));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Passes on every message until the browser ends.
fn read(mut stdout: BufReader<ChildStdout>, sender: &Sender<Value>) {
    loop {
        let mut message = Vec::new();
        let read = stdout.read_until(0, &mut message).unwrap_or(0);
        if read == 0 || message.pop() != Some(0) {
            return;
        }
        let message = serde_json::from_slice(&message).unwrap();
        if sender.send(message).is_err() {
            return;
        }
    }
}

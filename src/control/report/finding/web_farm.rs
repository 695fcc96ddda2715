//! What is wrong with the web servers and their pages.

use std::net::IpAddr;
use std::time::Duration;

use super::{Code, Finding};

impl Finding {
    /// Web servers call one application by two ids, each given with its users; most use `known`.
    /// `session` was used under both.
    pub fn application_ids_differ(
        known: (&str, String),
        also: (&str, String),
        session: &str,
    ) -> Self {
        let ((id, by), (other, other_by)) = (known, also);
        let name: String = id
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(63)
            .collect();
        let name = if name.is_empty() { "shop" } else { &name };
        Self::new(
            Code::ApplicationIdsDiffer,
            format!(
                "web servers call one application by two ids: {id} ({by}) and {other} ({other_by}); \
                 session {session} was used under both"
            ),
            "Users lose their session whenever another of these web servers serves them.",
            format!(
                "Give the site the same number, and the path the same letter case, on all web \
                 servers. Or write into the partition map: applications: [{{name: {name}, id: \
                 \"{id}\", also: [\"{other}\"]}}]"
            ),
        )
        .about(other)
    }

    /// Two web servers send different hashes of the application's id. `session` came with both.
    pub fn application_hashes_differ(app: &str, by: [IpAddr; 2], session: &str) -> Self {
        let [one, other] = by;
        Self::new(
            Code::ApplicationHashesDiffer,
            format!(
                "web servers send different hashes of the id {app}: {one} and {other}, for session \
                 {session}"
            ),
            "Users lose their session whenever another of these web servers serves them.",
            "Give all web servers the same framework version and the same machine key.",
        )
        .about(app)
    }

    /// Pages of `app` ran so long that others took their locks over: `writes` of them were refused
    /// within the last minutes, the last of them of `session`, from the web server `by`.
    pub fn writes_taken_over(
        app: &str,
        writes: u64,
        session: &str,
        by: IpAddr,
        takeover: Duration,
    ) -> Self {
        let writes = match writes {
            1 => "a write".to_owned(),
            writes => format!("{writes} writes"),
        };
        let takeover_s = takeover.as_secs_f64();
        Self::new(
            Code::WritesTakenOver,
            format!(
                "{writes} of {} came too late in the last 10 minutes: another page had taken over the \
                 lock (last: session {session}, web server {by})",
                named(app)
            ),
            "What these pages stored is lost, and ASP.NET says nothing of it: the page looks fine.",
            format!(
                "Find the pages that run longer than executionTimeout, which should be {takeover_s} s \
                 as handover.takeover is. Make them faster, or raise executionTimeout on every web \
                 server and handover.takeover here."
            ),
        )
        .about(app)
    }

    /// The web server `by` has left `requests` unanswered in the last minutes, the quickest of them
    /// after `least` at the latest. This proxy waits `answer` for its backends.
    pub fn client_gives_up(by: IpAddr, requests: u64, least: Duration, answer: Duration) -> Self {
        let (least_s, answer_s) = (least.as_secs_f64(), answer.as_secs_f64());
        let wanted_s = answer_s + 2.0;
        Self::new(
            Code::ClientGivesUp,
            format!(
                "the web server {by} has not waited for {requests} answers in the last 10 minutes, for \
                 one not even {least_s:.1} s"
            ),
            "Its users see error pages while a backend is slow, although their answer would have come.",
            format!(
                "Set stateNetworkTimeout in the sessionState of its web.config to {wanted_s:.0} s or \
                 more: this proxy waits up to {answer_s} s for a backend (timeouts.answer). If it is, \
                 see whether the worker process there ends again and again."
            ),
        )
        .about(&by.to_string())
    }

    /// The web server `by` has sent nothing for `silent`; before that it sent so many requests per
    /// minute.
    pub fn web_server_silent(by: IpAddr, silent: Duration, per_minute: f64) -> Self {
        let minutes = silent.as_secs() / 60;
        Self::new(
            Code::WebServerSilent,
            format!(
                "the web server {by} has sent nothing for {minutes} min, after {per_minute:.0} requests \
                 a minute; the others go on"
            ),
            "Nothing, if the balancer has taken it out. Otherwise its users see errors, or pages that \
             do without sessions.",
            "See whether its site runs, and whether it reaches this proxy: its event log has 1076 if \
             not. If it is out of service, do nothing: an hour after its last request it is forgotten.",
        )
        .about(&by.to_string())
    }

    /// Requests of `session` of `app` have found it locked all the time for `lasting`; the last of them
    /// came from the web server `by`.
    pub fn session_contended(session: &str, app: &str, by: IpAddr, lasting: Duration) -> Self {
        let minutes = (lasting.as_secs() / 60).max(1);
        Self::new(
            Code::SessionContended,
            format!(
                "session {session} of {} has been locked for most of its requests for {minutes} min \
                 (last from the web server {by})",
                named(app)
            ),
            "Its pages wait for each other, one at a time. If many users share its cookie, all of them \
             wait.",
            "Find what asks so often: a page that polls, frames, a robot, a load test. Give pages that \
             only read EnableSessionState=\"ReadOnly\", and those that need no session \"false\".",
        )
        .about(session)
    }

    /// Sessions of `app` of `from_bytes` or more were stored in the last minutes: at least `sessions`
    /// of them, the largest with `largest_bytes`.
    pub fn sessions_large(
        app: &str,
        sessions: usize,
        (largest, largest_bytes): (&str, u64),
        from_bytes: u64,
    ) -> Self {
        let sessions = match sessions {
            1 => "a session".to_owned(),
            sessions => format!("at least {sessions} sessions"),
        };
        Self::new(
            Code::SessionsLarge,
            format!(
                "{sessions} of {} had {} or more in the last 10 minutes; the largest, {largest}, has {}",
                named(app),
                mib(from_bytes),
                mib(largest_bytes)
            ),
            "Every page of such a user carries all of it to the web server and back, and it fills the \
             state servers.",
            "Look with `staterouter contents` which items it is, and keep them elsewhere, or turn on \
             compressionEnabled. If such sessions are wanted, raise large_session.",
        )
        .about(app)
    }
}

/// An application as it stands in a sentence.
fn named(app: &str) -> String {
    match app {
        "" => "an application without a name".to_owned(),
        app => format!("the application {app}"),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

//! The suite: what is asked in which order.

use std::collections::{BTreeMap, HashMap};

use super::checks::{self, Check};
use super::fixtures::{self, FixtureItem, Scenario, WireVector};
use super::line::{NoAnswer, TargetLine};
use super::message::{AskedFor, Differences};
use super::own::OwnIds;
use super::report::{CheckInfo, CheckReport, ConformanceReport, Outcome, SpellingReport, Verdict};
use super::scratch::{Ask, ConformanceOptions, Talk};
use super::thorough;
use crate::wire::Operation;

/// Why the suite could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// The server says nothing.
    #[error("{target}: {reason}")]
    Silent {
        /// The server.
        target: String,
        /// Why there is no answer.
        reason: String,
    },
    /// What answers is no state server: nothing more is sent there.
    #[error(
        "{target} answers HEAD for a session that nobody has with status {status} instead of 404, so it \
         is no state server"
    )]
    NoStateServer {
        /// The server.
        target: String,
        /// What it said.
        status: u16,
    },
    /// A name that no check has.
    #[error("there is no check named {0}; docs/protocol.md lists them")]
    NoSuchCheck(String),
}

/// Runs the suite; `told` hears of each check as soon as it is over.
///
/// # Errors
/// [`ConformanceError`], before anything was stored.
pub fn run(
    options: &ConformanceOptions,
    told: &mut dyn FnMut(&CheckReport),
) -> Result<ConformanceReport, ConformanceError> {
    let names: Vec<String> = all_checks().map(|check| check.id).collect();
    if let Some(wrong) = options.only.iter().find(|only| !names.contains(only)) {
        return Err(ConformanceError::NoSuchCheck(wrong.clone()));
    }
    let mut talk = Talk::new(options);
    begin(&mut talk)?;
    let mut suite = Suite {
        talk,
        checks: Vec::new(),
        spelling: BTreeMap::new(),
        told,
    };
    for vector in fixtures::wire_vectors() {
        let id = format!("vector-{}", vector.n);
        suite.check(&id, section_of(vector.n), &vector.name, |suite| {
            suite.vector(&id, &vector)
        });
    }
    for (scenario, n) in fixtures::scenarios().iter().zip(1..) {
        let id = format!("scenario-{n}");
        suite.check(&id, "6", &scenario.name, |suite| {
            suite.scenario(&id, scenario)
        });
    }
    let takes_thorough = options.thorough || !options.only.is_empty();
    let thorough = thorough::CHECKS.iter().filter(|_| takes_thorough);
    for check in checks::CHECKS.iter().chain(thorough) {
        let Check { id, section, .. } = *check;
        suite.check(id, section, check.question, |suite| {
            (check.run)(&mut suite.talk)
        });
    }
    Ok(suite.end())
}

/// Every check there is, those that are thorough last.
pub fn all_checks() -> impl Iterator<Item = CheckInfo> {
    let vectors = fixtures::wire_vectors()
        .into_iter()
        .map(|vector| CheckInfo {
            id: format!("vector-{}", vector.n),
            is_thorough: false,
        });
    let scenarios = (1..=fixtures::scenarios().len()).map(|n| CheckInfo {
        id: format!("scenario-{n}"),
        is_thorough: false,
    });
    let named = |checks: &'static [Check], is_thorough| {
        checks.iter().map(move |check| CheckInfo {
            id: check.id.to_owned(),
            is_thorough,
        })
    };
    let named = named(checks::CHECKS, false).chain(named(thorough::CHECKS, true));
    vectors.chain(scenarios).chain(named)
}

/// Asks for a session that nobody has: that stores nothing anywhere.
fn begin(talk: &mut Talk<'_>) -> Result<(), ConformanceError> {
    let target = talk.options.target.to_string();
    let silent = |silence: NoAnswer| ConformanceError::Silent {
        target: target.clone(),
        reason: silence.to_string(),
    };
    let unknown = talk.own_target().map_err(silent)?;
    let answer = talk.ask(&unknown, Ask::of(Operation::Touch));
    let status = answer.map_err(silent)?.head.status;
    if status != 404 {
        return Err(ConformanceError::NoStateServer { target, status });
    }
    talk.learn().map_err(silent)
}

/// The section of docs/protocol.md that a vector belongs to.
fn section_of(vector: u32) -> &'static str {
    match vector {
        14 | 15 | 27 => "5.2",
        25 | 26 | 40 | 42 => "3",
        37..=39 => "2.2",
        _ => "5.3",
    }
}

struct Suite<'a> {
    talk: Talk<'a>,
    checks: Vec<CheckReport>,
    /// What is spelled otherwise: in how many answers, and where first.
    spelling: BTreeMap<String, (u64, String)>,
    told: &'a mut dyn FnMut(&CheckReport),
}

impl Suite<'_> {
    fn check(
        &mut self,
        id: &str,
        section: &'static str,
        name: &str,
        run: impl FnOnce(&mut Self) -> Result<Outcome, NoAnswer>,
    ) {
        let only = &self.talk.options.only;
        let is_asked = only.is_empty() || only.iter().any(|only| only == id);
        if !is_asked || self.talk.options.stop.is_stopped() {
            return;
        }
        let outcome = match self.talk.is_gone() {
            true => Outcome::not_told("the server takes no connections any more"),
            false => run(self).unwrap_or_else(|silence| Outcome::not_told(silence.to_string())),
        };
        self.talk.clean();
        let report = CheckReport {
            id: id.to_owned(),
            section,
            name: name.to_owned(),
            verdict: outcome.verdict,
            findings: outcome.findings,
        };
        (self.told)(&report);
        self.checks.push(report);
    }

    /// One exchange, its items brought into the state before, and looked at afterwards.
    fn vector(&mut self, id: &str, vector: &WireVector) -> Result<Outcome, NoAnswer> {
        let mut own = self.talk.own_ids()?;
        for item in &vector.given {
            if let Some(reason) = self.build(&mut own, item)? {
                return Ok(Outcome::not_told(reason));
            }
        }
        let mut line = self.talk.open()?;
        let fixture = (&*vector.request, &*vector.response);
        let compared = self.exchange(id, &mut line, &mut own, fixture);
        let mut findings = match &compared {
            Ok(differences) => differences.matter.clone(),
            Err(silence) => vec![silence.to_string()],
        };
        if findings.is_empty() {
            findings = self.afterwards(&own, vector)?;
        }
        let mut outcome = Outcome::of(findings);
        match (&vector.note, outcome.verdict) {
            // Nobody knows what the real server does.
            (Some(note), Verdict::Differs) => {
                outcome.verdict = Verdict::Observed;
                outcome.findings.push(format!("open: {note}"));
            }
            (_, Verdict::AsDescribed) if !compared.is_ok_and(|found| found.spelling.is_empty()) => {
                outcome.verdict = Verdict::SpelledOtherwise;
            }
            _ => {}
        }
        Ok(outcome)
    }

    /// Steps in order, each web request over a connection of its own.
    fn scenario(&mut self, id: &str, scenario: &Scenario) -> Result<Outcome, NoAnswer> {
        let mut own = self.talk.own_ids()?;
        let mut lines: HashMap<&str, TargetLine> = HashMap::new();
        let mut is_spelled_otherwise = false;
        for (step, n) in scenario.steps.iter().zip(1..) {
            let line = match lines.remove(&*step.by) {
                Some(line) => line,
                None => self.talk.open()?,
            };
            let line = lines.entry(&step.by).or_insert(line);
            let fixture = (&*step.request, &*step.response);
            let findings = match self.exchange(id, line, &mut own, fixture) {
                Ok(differences) => {
                    is_spelled_otherwise |= !differences.spelling.is_empty();
                    differences.matter
                }
                Err(silence) => vec![silence.to_string()],
            };
            if !findings.is_empty() {
                let at = format!("step {n} of {}", scenario.steps.len());
                let findings = findings.iter().map(|finding| format!("{at}: {finding}"));
                return Ok(Outcome::of(findings.collect()));
            }
        }
        let mut outcome = Outcome::fine();
        if is_spelled_otherwise {
            outcome.verdict = Verdict::SpelledOtherwise;
        }
        Ok(outcome)
    }

    fn exchange(
        &mut self,
        id: &str,
        line: &mut TargetLine,
        own: &mut OwnIds,
        (request, response): (&[u8], &[u8]),
    ) -> Result<Differences, NoAnswer> {
        let mut answer = self.talk.ask_over(line, &own.request(request))?;
        answer.has_more |= line.has_more();
        let expected = own.expected(request, response, &answer);
        let is_read = request.starts_with(b"GET ") && !contains(request, b"release");
        let asked = if is_read {
            AskedFor::Read
        } else {
            AskedFor::Other
        };
        let differences = Differences::between(&expected, &answer, asked);
        for text in &differences.spelling {
            let seen = self.spelling.entry(text.clone());
            seen.or_insert_with(|| (0, id.to_owned())).0 += 1;
        }
        Ok(differences)
    }

    /// Brings an item into its state by operations alone; says why that was not possible.
    fn build(&mut self, own: &mut OwnIds, item: &FixtureItem) -> Result<Option<String>, NoAnswer> {
        let target = own.target(&item.key);
        let put = Ask {
            extra_flags: u32::from(item.uninit),
            timeout_minutes: item.timeout,
            ..Ask::put(&item.body)
        };
        let mut asked = (put.operation, self.talk.ask(&target, put)?);
        for number in 2..=item.cookie {
            let acquired = self.talk.ask(&target, Ask::of(Operation::Acquire))?;
            if let (200, Some(lock)) = (acquired.head.status, acquired.lock()) {
                own.note(&item.key, number, lock);
            }
            asked = (Operation::Acquire, acquired);
            if asked.1.head.status == 200 && (number < item.cookie || !item.locked) {
                let release = Ask::under(Operation::Release, own.lock(&item.key, number));
                asked = (Operation::Release, self.talk.ask(&target, release)?);
            }
            if asked.1.head.status != 200 {
                break;
            }
        }
        let (operation, answer) = asked;
        let (operation, status) = (operation.name(), answer.head.status);
        Ok((status != 200).then(|| {
            format!("the state before it could not be reached: {operation} was answered {status}")
        }))
    }

    /// What differs from the state that the vector wants afterwards.
    fn afterwards(&mut self, own: &OwnIds, vector: &WireVector) -> Result<Vec<String>, NoAnswer> {
        let mut findings = Vec::new();
        for item in &vector.then {
            let target = own.target(&item.key);
            let answer = self.talk.ask(&target, Ask::of(Operation::Get))?;
            let lock = own.lock(&item.key, item.cookie);
            let head = answer.head();
            let timeout = answer.head.timeout.map(|span| span.of(head).to_vec());
            let status = answer.head.status;
            let finding = match item.locked {
                true if status != 423 => format!("status {status} where the item is locked"),
                true if answer.lock() != Some(lock) => format!("another lock than {lock}"),
                true => continue,
                false if status != 200 => format!("status {status} where the item is there"),
                false if answer.body() != item.body => "the item has another body".to_owned(),
                false if answer.has_flag() && !item.uninit => {
                    "the item counts as uninitialised: Session_Start runs again".to_owned()
                }
                false if !answer.has_flag() && item.uninit => {
                    "the item counts as initialised: Session_Start does not run".to_owned()
                }
                false if timeout != Some(item.timeout.to_string().into_bytes()) => {
                    "the item has another timeout".to_owned()
                }
                false => continue,
            };
            findings.push(format!("afterwards: {finding}"));
        }
        let is_left = |item: &&FixtureItem| vector.then.iter().any(|then| then.key == item.key);
        for item in vector.given.iter().filter(|item| !is_left(item)) {
            let target = own.target(&item.key);
            let status = self.talk.ask(&target, Ask::of(Operation::Get))?.head.status;
            if status != 404 {
                findings.push(format!("afterwards: status {status} where nothing is left"));
            }
        }
        Ok(findings)
    }

    fn end(self) -> ConformanceReport {
        let spelling = self.spelling.into_iter();
        ConformanceReport {
            target: self.talk.options.target.to_string(),
            proxy: self.talk.is_proxy,
            thorough: self.talk.options.thorough,
            stopped: self.talk.options.stop.is_stopped(),
            requests: self.talk.requests,
            checks: self.checks,
            spelling: spelling
                .map(|(text, (answers, first))| SpellingReport {
                    text,
                    answers,
                    first,
                })
                .collect(),
            left_behind: self.talk.left_behind(),
        }
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|part| part == wanted)
}
